"""From the bytes of an image file to the one RGB picture that is trained on and predicted, or to why there is none.

What a picture looks like is settled by rule, once, and each rule that changed something is named: the first frame,
turned as EXIF says, 16 bits a channel brought to 8 by the upper byte, transparency laid over white. Colour profiles
and gamma are not applied. Nothing is guessed: numbers outside the range that their type stands for are refused. A JPEG
whose middle was overwritten decodes to a picture with grey or torn blocks; no decoder reports that, only a digest of
the file would.
"""

import io
import threading
import warnings
from types import TracebackType

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from .unusable import COMMON, SNIFFED_BYTES, Unusable, fold, is_text, shown

MAX_PIXELS = 50_000_000
MIN_SIDE = 2
MAX_ASPECT = 100

# Pillow reads some forty formats, many with decoders that few eyes have seen; files reach these alone.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
EXPECTED = f"expected an image: {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
# What arrives in the place of images. The keys are compared with the lower-case start of the file.
LOOKS = COMMON | {
    b"<svg": "SVG",
    b"8bps": "a Photoshop file",
    b"\0\0\x01\0": "an icon",
    b"\0\0\0\x0cjp  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cjxl ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
# Of the family of containers that begin with a box "ftyp", by the brand that follows.
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}

GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}
# What a step of 2 or 4 bits is worth in 8.
PACKED_GREY = {"L;2": 85, "L;4": 17}
# White, by the mode of 32 bits.
LARGEST = {"I": 65535.0, "F": 1.0}
ORIENTATION = 0x0112
PHOTOMETRIC = 0x0106
BITS_PER_SAMPLE = 0x0102
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnusableImage(Unusable):
    """Why the bytes can't be trained on as a picture."""


class _Quiet:
    """Mutes warnings: Pillow's are about bytes that are refused or accepted here by rule.

    Counted, because the filters belong to the process: were each thread to save and restore them by itself, the last
    to leave could restore the muted ones for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(kind, error, traceback)


_quiet = _Quiet()


def decode_image(data: bytes) -> Image.Image:
    """The picture in these bytes as RGB, by the rules above. Raises UnusableImage."""
    return read_image(data)[0]


def fit_image(image: Image.Image, side: int, edge: int | tuple[int, int] | None) -> Image.Image:
    """The picture as a square of `side`, the middle of what it becomes by `edge`: see `PixelConfig`."""
    if edge is None:
        return image.resize((side, side), Image.Resampling.BICUBIC)
    if isinstance(edge, int):
        scale = edge / min(image.size)
        edge = (round(image.width * scale), round(image.height * scale))
    width, height = (max(side, each) for each in edge)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def read_image(data: bytes) -> tuple[Image.Image, set[str]]:
    """The picture as `decode_image` gives it, and the words for what the rules did to it. Raises UnusableImage."""
    with _quiet:
        image = _open(data)
        _check_size(image)
        try:
            return _canonical(image, data)
        except UnusableImage:
            raise
        except Exception as error:  # Pillow raises whatever damaged bytes lead it into
            raise _damaged(str(image.format), error) from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """The image with its header read and no pixel decoded."""
    if not data:
        raise UnusableImage("the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UnusableImage(_too_many(), str(error).partition(" exceeds")[0]) from error
    except Exception as error:
        look = _look(data)
        if look is None:
            raise _damaged(next(name for magic, name in MAGIC.items() if data.startswith(magic)), error) from error
        raise UnusableImage(f"{look}, {EXPECTED}", shown(data)) from error


def _look(data: bytes) -> str | None:
    """What the bytes look like; None for an image of a format that is read here."""
    start = data[:SNIFFED_BYTES]
    folded = fold(start)
    for key, look in LOOKS.items():
        if folded.startswith(key):
            return look
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12], "a film")
    if start.startswith(b"RIFF") and start[8:12] != b"WEBP":
        return "sound or a film"
    if not any(start):
        return "zero bytes"
    if is_text(start):
        return "text"
    return None if start.startswith(tuple(MAGIC)) else "no known format"


def _damaged(name: str, error: Exception) -> UnusableImage:
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own words name an object in memory by its address.
        message = "its header can't be read"
    elif isinstance(error, OSError | SyntaxError | ValueError):
        message = str(error)
    else:
        message = f"its parts don't fit together ({type(error).__name__})"
    # MPO is what Pillow calls a JPEG that has further pictures behind the first, as phones write them.
    return UnusableImage(f"damaged or cut short {name.replace('MPO', 'JPEG')}", message)


def _too_many() -> str:
    return f"more than {MAX_PIXELS:,} pixels"


def _check_size(image: ImageFile.ImageFile) -> None:
    short, long = sorted(image.size)
    size = f"{image.width} x {image.height}"
    if short * long > MAX_PIXELS:
        raise UnusableImage(_too_many(), size)
    if short < MIN_SIDE:
        raise UnusableImage(f"a side shorter than {MIN_SIDE} pixels", size)
    if long > MAX_ASPECT * short:
        raise UnusableImage(f"one side is more than {MAX_ASPECT} times the other", size)


def _canonical(image: ImageFile.ImageFile, data: bytes) -> tuple[Image.Image, set[str]]:
    """The picture as RGB without anything attached to it, and the rules that changed something."""
    if image.format == "PNG":
        # Decoding passes over the checksums of the pixels and over a missing end; only this reads them.
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
    raw = _raw_mode(image)
    converted = _storage_words(image, raw)
    # Pillow turns a TIFF while it decodes it and then forgets that it did.
    turn = _orientation(image) if image.format == "TIFF" else 1
    image.load()
    rgb, is_transparent = _to_rgb(image, raw)
    if is_transparent:
        converted.add("transparency")
    rest = _orientation(image)
    if rest in TURNS:
        rgb = rgb.transpose(TURNS[rest])
    if turn in TURNS or rest in TURNS:
        converted.add("turned")
    # What stays attached would be applied again: EXIF turns, colours that are named transparent.
    rgb.info.clear()
    return rgb, converted


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the file packs its samples, in Pillow's words, for instance "RGB;16B"; to be asked before it is decoded."""
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _storage_words(image: ImageFile.ImageFile, raw: str) -> set[str]:
    """The words for how the picture is stored; refuses what Pillow would decode to something else without a word."""
    words = set()
    if getattr(image, "is_animated", False):
        words.add("first frame of several")
    if image.mode in GREY or raw.startswith("LA"):
        words.add("grey")
    if image.mode in ("P", "PA"):
        words.add("palette")
    if image.mode == "CMYK":
        words.add("CMYK")
    if image.mode == "LAB":
        raise UnusableImage("colours stored as LAB, expected RGB, CMYK or grey")
    if image.format in ("PNG", "TIFF"):
        words |= _depth_words(image, raw)
    return words


def _depth_words(image: ImageFile.ImageFile, raw: str) -> set[str]:
    is_deep = ";16" in raw or ";12" in raw
    if is_deep and image.mode == "RGB" and "transparency" in image.info:
        raise UnusableImage("16 bits a channel with one colour that stands for transparency, expected an alpha channel")
    tags = getattr(image, "tag_v2", {})
    if ";" not in raw and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
        raise UnusableImage("16 bits a channel in separate planes, expected interleaved channels")
    if is_deep:
        return {"16 bits a channel"}
    return {"32 bits a channel"} if ";32" in raw else set()


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF turns nothing; the pixels are whole
        return 1


def _to_rgb(image: Image.Image, raw: str) -> tuple[Image.Image, bool]:
    """The decoded picture as RGB over white, and whether any of it was transparent."""
    if image.mode in GREY and image.mode not in ("1", "L", "LA", "La"):
        return _narrow(image, 4 if raw == "I;12" else 8)
    if not image.has_transparency_data:
        return image.convert("RGB"), False
    if image.mode == "L" and raw in PACKED_GREY:
        # Pillow spreads the samples over 8 bits and leaves the transparent one as it was packed.
        image.info["transparency"] *= PACKED_GREY[raw]
    rgba = image.convert("RGBA")
    return _over_white(rgba.convert("RGB"), rgba.getchannel("A"))


def _narrow(image: Image.Image, dropped_bits: int) -> tuple[Image.Image, bool]:
    """Grey of 12, 16 or 32 bits as RGB; Pillow itself would cut off everything above 255."""
    samples = np.asarray(image)
    if image.mode in LARGEST:
        largest = LARGEST[image.mode]
        low, high = float(samples.min()), float(samples.max())
        if not (low >= 0 and high <= largest):
            raise UnusableImage(f"numbers outside 0 to {largest:g}", f"{low:g} to {high:g}")
        if image.mode == "F":
            samples = np.rint(samples * 65535)
    grey = (samples.astype(np.uint16) >> dropped_bits).astype(np.uint8)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC, 0) == 0:
        # White is zero (and where nothing is said); Pillow turns it round for 8 bits alone.
        grey = 255 - grey
    rgb = Image.fromarray(grey).convert("RGB")
    if "transparency" not in image.info:
        return rgb, False
    alpha = np.where(samples == image.info["transparency"], 0, 255).astype(np.uint8)
    return _over_white(rgb, Image.fromarray(alpha))


def _over_white(rgb: Image.Image, alpha: Image.Image) -> tuple[Image.Image, bool]:
    if alpha.getextrema() == (255, 255):
        return rgb, False
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white, True
