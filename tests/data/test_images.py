"""What an image looks like is settled by rule, what can't be trained on is refused, and copies are found."""

import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graftwork.data.images import ImageFacts, inspect_image, similar_images
from graftwork.data.quarantine import BadRow
from graftwork.models.serving.pictures import MAX_PIXELS, decode_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corner(width: int = 12, height: int = 8) -> Image.Image:
    """Left red, right blue, and the upper left corner green: no turn leaves it as it is."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = RED
    pixels[:, width // 2 :] = BLUE
    pixels[: height // 2, : width // 2] = GREEN
    return Image.fromarray(pixels)


def noise(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Every pixel by chance."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def scene(seed: int) -> Image.Image:
    """Waves of all lengths, the long ones strong, as in photographs, and a little noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:240, 0:320] / 240
    grey = generator.normal(0, 0.03, x.shape)
    for _ in range(12):
        across, down = generator.normal(0, 3, 2)
        grey += np.sin(2 * np.pi * (across * x + down * y) + generator.uniform(0, 6)) / (1 + np.hypot(across, down))
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    return Image.fromarray((np.stack([grey, grey**2, 1 - grey], axis=2) * 255).astype(np.uint8))


def save(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(image: Image.Image, orientation: int, kind: str) -> bytes:
    """A file that says in its EXIF how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(image, kind, exif=exif)


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], **chunks: bytes) -> bytes:
    """A PNG written chunk by chunk, for what Pillow doesn't write."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))]
    parts += [(name.encode(), value) for name, value in chunks.items()]
    parts += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff_in_planes() -> bytes:
    """16 bits a channel, one plane after the other, as some microscopes write it."""
    short, long = 3, 4
    tags = [(256, short, 8), (257, short, 8), (258, short, (16, 16, 16)), (259, short, 1), (262, short, 2)]
    tags += [(273, long, (200, 328, 456)), (277, short, 3), (278, short, 8), (279, long, (128, 128, 128))]
    tags += [(284, short, 2)]
    directory, tail, offset = struct.pack("<H", len(tags)), b"", 8 + 2 + 12 * len(tags) + 4
    for tag, kind, value in tags:
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"<{len(values)}{'HI'[kind - short]}", *values)
        if len(packed) > 4:
            packed, tail = struct.pack("<I", offset + len(tail)), tail + packed
        directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    file = b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + tail
    return file.ljust(200, b"\0") + np.arange(192, dtype="<u2").tobytes()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data))


def converted(data: bytes) -> tuple[str, ...]:
    facts = inspect_image(data, "image")
    assert isinstance(facts, ImageFacts), facts
    return facts.converted


JPEG, PNG = save(noise(0), "JPEG"), save(noise(0), "PNG")
GREY16 = np.array([[0, 255, 256, 32768, 65535, 65280]] * 2, dtype=np.uint16)
NARROWED = [0, 0, 1, 128, 255, 255]

# name, bytes of the file, what the reason says, what the value says
REFUSED = {
    "empty": (b"", "the file is empty", ""),
    "900 million pixels": (png(30_000, 30_000, 8, 2, []), "more than 50,000,000 pixels", "900000000"),
    "120 million pixels": (png(12_000, 10_000, 8, 2, []), "more than 50,000,000 pixels", "12000 x 10000"),
    "just too many": (png(MAX_PIXELS // 5_000 + 1, 5_000, 1, 0, []), "more than 50,000,000 pixels", "10001 x 5000"),
    "one pixel": (save(Image.new("RGB", (1, 1)), "PNG"), "a side shorter than 2 pixels", "1 x 1"),
    "a line": (save(Image.new("RGB", (1, 40)), "BMP"), "a side shorter than 2 pixels", "1 x 40"),
    "a thread": (save(Image.new("RGB", (403, 4)), "PNG"), "one side is more than 100 times the other", "403 x 4"),
    "no width": (png(0, 5, 8, 2, []), "damaged or cut short PNG|a side shorter", ""),
    "no pixels": (png(8, 8, 8, 2, []), "damaged or cut short PNG", ""),
    "JPEG cut short": (JPEG[: len(JPEG) // 2], "damaged or cut short JPEG", "truncated"),
    "JPEG without its end": (JPEG[:-2], "damaged or cut short JPEG", "truncated"),
    "JPEG header only": (JPEG[:30], "damaged or cut short JPEG", ""),
    "progressive JPEG cut short": (save(noise(0), "JPEG", progressive=True)[:-900], "damaged or cut short JPEG", ""),
    "PNG cut short": (PNG[: len(PNG) // 2], "damaged or cut short PNG", ""),
    "PNG without its end": (PNG[:-12], "damaged or cut short PNG", "truncated PNG file"),
    "PNG header cut short": (PNG[:20], "damaged or cut short PNG", ""),
    "PNG without a header": (PNG[:8] + bytes(50), "damaged or cut short PNG", "its header can't be read"),
    "GIF cut short": (save(noise(0), "GIF")[:-40], "damaged or cut short GIF", "truncated"),
    "WEBP cut short": (save(noise(0), "WEBP")[:-40], "damaged or cut short WEBP", ""),
    "BMP cut short": (save(noise(0), "BMP")[:-40], "damaged or cut short BMP", "truncated"),
    "TIFF cut short": (save(noise(0), "TIFF")[:-4000], "damaged or cut short TIFF", ""),
    "HTML": (b"\n<!DOCTYPE html><title>404 Not Found</title>", "HTML, expected an image: JPEG, PNG", "404 Not Found"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "PDF, expected an image", "%PDF"),
    "gzip": (zlib.compress(b"a" * 99, wbits=31), "gzip, expected an image", ""),
    "zip": (b"PK\x03\x04\x14\0\0\0", "zip, expected an image", "PK"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG, expected an image", "svg"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "git lfs pull", "version"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, expected an image", ""),
    "sound": (b"RIFF\x24\0\0\0WAVEfmt ", "sound or a film, expected an image", "WAVE"),
    "text": (b"BMW is how this text begins\n", "text, expected an image", "BMW"),
    "text of another alphabet": ("Изображение не найдено".encode(), "text, expected an image", "Изображение"),
    "zero bytes": (bytes(5000), "zero bytes, expected an image", ""),
    "anything": (bytes(range(200, 256)), "no known format, expected an image", ""),
    "PPM": (b"P6 2 2 255 " + bytes(12), "no known format|text", ""),
    "icon": (save(Image.new("RGB", (16, 16)), "ICO"), "an icon, expected an image", ""),
    "JPEG 2000": (save(noise(0), "JPEG2000"), "JPEG 2000, expected an image", ""),
    "AVIF": (save(noise(0), "AVIF"), "AVIF, expected an image", ""),
    "numbers of no scale": (save(Image.new("F", (8, 8), 3.5), "TIFF"), "numbers outside 0 to 1", "3.5 to 3.5"),
    "not a number": (save(Image.new("F", (8, 8), float("nan")), "TIFF"), "numbers outside 0 to 1", "nan"),
    "below zero": (save(Image.new("I", (8, 8), -1000), "TIFF"), "numbers outside 0 to 65535", "-1000 to -1000"),
    "LAB": (save(Image.new("LAB", (8, 8)), "TIFF"), "colours stored as LAB", ""),
    "16 bits in planes": (tiff_in_planes(), "16 bits a channel in separate planes", ""),
    "16 bits and a transparent colour": (
        png(2, 2, 16, 2, [bytes(12)] * 2, tRNS=bytes(6)),
        "one colour that stands for transparency",
        "",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_on_is_refused_with_its_reason(name: str):
    """A bad row of the column, the reason free of what differs from file to file; decoding says the same."""
    data, reason, value = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        decode_image(data)
    found = inspect_image(data, "photo")
    assert isinstance(found, BadRow) and found.column == "photo"
    assert value in found.value and " at 0x" not in found.value


def test_each_damaged_checksum_is_refused():
    """A bit turned over anywhere in a PNG's pixels or checksums is found."""
    for place in range(33, len(PNG) - 12, 97):
        data = bytearray(PNG)
        data[place] ^= 4
        found = inspect_image(bytes(data), "image")
        assert isinstance(found, BadRow) and found.reason == "damaged or cut short PNG", place


def test_no_warning_leaves_and_no_setting_stays():
    """A bomb warns nobody, in whichever thread, and Pillow's limit and the filters are what they were."""
    files = [REFUSED["120 million pixels"][0], REFUSED["900 million pixels"][0], JPEG, PNG] * 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters), Image.MAX_IMAGE_PIXELS
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda data: inspect_image(data, "image"), files))
        assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == before
    assert [isinstance(facts, ImageFacts) for facts in found] == [False, False, True, True] * 20


def test_a_bomb_is_refused_before_it_is_decoded():
    """900 million pixels that would inflate whole are refused in the time that a header takes."""
    row = bytes(30_000 // 8)
    data = png(30_000, 30_000, 1, 0, [row] * 30_000)
    start = time.process_time()
    assert isinstance(inspect_image(data, "image"), BadRow)
    assert time.process_time() - start < 0.1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_equal_pixels_are_alike_whatever_the_file(kind: str):
    """PNG, BMP, TIFF, GIF and lossless WEBP of one picture; each file has a reference of its own."""
    picture = corner()
    data = save(picture, kind, lossless=True)
    facts, other = inspect_image(data, "image"), inspect_image(save(picture, "PNG"), "image")
    assert facts.likeness == other.likeness
    assert (facts.reference == other.reference) is (kind == "PNG")
    assert (pixels(data) == pixels(save(picture, "PNG"))).all()
    assert (facts.width, facts.height) == (12, 8) and len(facts.reference) == 40 and len(facts.likeness) == 32
    picture.putpixel((11, 7), RED)
    assert facts.reference != inspect_image(save(picture, kind, lossless=True), "image").reference


def test_a_picture_as_it_should_be_is_left_alone():
    """RGB comes out bit for bit, with no rule counted, and an opaque alpha channel counts as none."""
    assert (pixels(PNG) == np.asarray(noise(0))).all() and converted(PNG) == ()
    opaque = save(noise(0).convert("RGBA"), "PNG")
    assert (pixels(opaque) == np.asarray(noise(0))).all() and converted(opaque) == ()
    assert (pixels(JPEG) == np.asarray(Image.open(io.BytesIO(JPEG)))).all() and converted(JPEG) == ()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_transparency_is_laid_over_white(mode: str, kind: str):
    """Clear is white whatever hides below it, half clear is half way to white, opaque stays."""
    picture = Image.new(mode, (4, 2), (100,) * (len(mode) - 1) + (255,))
    picture.putpixel((0, 0), (100,) * (len(mode) - 1) + (0,))
    picture.putpixel((1, 0), (100,) * (len(mode) - 1) + (128,))
    data = save(picture, kind)
    half = round(255 + (100 - 255) * 128 / 255)
    assert pixels(data)[0].tolist() == [list(WHITE), [half] * 3, [100] * 3, [100] * 3]
    assert converted(data) == (("grey",) if mode == "LA" else ()) + ("transparency",)


@pytest.mark.parametrize("transparency", [1, b"\xff\0\xff"])
@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_is_looked_up(kind: str, transparency: int | bytes):
    """Each index is its colour, the transparent one white; without transparency only the palette is counted."""
    if kind == "GIF" and isinstance(transparency, bytes):
        transparency = 1
    picture = Image.new("P", (3, 2))
    picture.putpalette([*RED, *GREEN, *BLUE])
    picture.putdata([0, 1, 2] * 2)
    assert pixels(save(picture, kind)).tolist() == [[list(RED), list(GREEN), list(BLUE)]] * 2
    assert converted(save(picture, kind)) == ("palette",)
    data = save(picture, kind, transparency=transparency)
    assert pixels(data).tolist() == [[list(RED), list(WHITE), list(BLUE)]] * 2
    assert converted(data) == ("palette", "transparency")


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_any_depth_with_a_transparent_value(depth: int):
    """Samples spread over 0 to 255, and the transparent one is white, also where it is packed."""
    highest = 2**depth - 1
    samples = [0, highest, 0, highest, 0, highest, 0, highest]
    packed = int("".join(f"{sample:0{depth}b}" for sample in samples), 2).to_bytes(depth, "big")
    assert pixels(png(8, 2, depth, 0, [packed] * 2))[0, :, 0].tolist() == [0, 255] * 4
    data = png(8, 2, depth, 0, [packed] * 2, tRNS=struct.pack(">H", 0))
    assert pixels(data)[0, :, 0].tolist() == [255, 255] * 4 and converted(data) == ("grey", "transparency")
    data = png(8, 2, depth, 0, [bytes(depth)] * 2, tRNS=struct.pack(">H", highest))
    assert pixels(data).max() == 0 and converted(data) == ("grey",)


@pytest.mark.parametrize(
    "data",
    [save(corner().convert("L"), "PNG"), save(corner().convert("L"), "JPEG"), save(corner().convert("1"), "BMP")],
)
def test_grey_has_three_equal_channels(data: bytes):
    """As Pillow's own conversion has it."""
    assert (pixels(data) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    assert converted(data) == ("grey",)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_16_bits_are_brought_to_8_by_their_upper_byte(compression: str):
    """Grey and colour by one rule, PNG and TIFF alike; nothing is cut off at 255."""
    files = [
        save(Image.fromarray(GREY16), "PNG"),
        save(Image.fromarray(GREY16), "TIFF", compression=compression),
        save(Image.fromarray(GREY16.astype(np.int32)), "TIFF", compression=compression),
        png(6, 2, 16, 2, [np.repeat(GREY16[0], 3).astype(">u2").tobytes()] * 2),
    ]
    for data in files:
        assert pixels(data)[0, :, 0].tolist() == NARROWED and pixels(data).shape == (2, 6, 3)
    assert [converted(data) for data in files] == [
        ("16 bits a channel", "grey"),
        ("16 bits a channel", "grey"),
        ("32 bits a channel", "grey"),
        ("16 bits a channel",),
    ]


def test_16_bits_with_transparency():
    """A transparent value is compared in all its bits; an alpha channel is brought to 8 bits as the others are."""
    row = GREY16[0].astype(">u2").tobytes()
    data = png(6, 2, 16, 0, [row] * 2, tRNS=struct.pack(">H", 256))
    assert pixels(data)[0, :, 0].tolist() == [0, 0, 255, 128, 255, 255]
    assert converted(data) == ("16 bits a channel", "grey", "transparency")
    data = png(3, 2, 16, 4, [struct.pack(">6H", 0, 65535, 0, 0, 32768, 65535)] * 2)
    assert pixels(data)[0, :, 0].tolist() == [0, 255, 128]
    assert converted(data) == ("16 bits a channel", "grey", "transparency")


def test_white_is_zero_is_turned_round_at_any_depth():
    """A TIFF that counts from white shows the same picture in 8 and in 16 bits."""
    for samples in (np.array([[0, 255]] * 2, dtype=np.uint8), np.array([[0, 65535]] * 2, dtype=np.uint16)):
        data = bytearray(save(Image.fromarray(samples), "TIFF"))
        entry = data.index(struct.pack("<HHI", 262, 3, 1))
        data[entry + 8] = 0
        assert pixels(bytes(data))[0, :, 0].tolist() == [255, 0]


def test_fractions_reach_from_black_to_white():
    """0 to 1 of a floating-point TIFF is 0 to 255, and each of the 256 values comes out as itself."""
    data = save(Image.fromarray(np.tile(np.arange(256, dtype=np.float32) / 255, (3, 1))), "TIFF")
    assert pixels(data)[0, :, 0].tolist() == list(range(256))
    assert converted(data) == ("32 bits a channel", "grey")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str):
    """Red printed is red seen."""
    data = save(Image.new("RGB", (16, 16), RED).convert("CMYK"), kind)
    assert np.abs(pixels(data).astype(int) - RED).max() <= 3 and converted(data) == ("CMYK",)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_taken(kind: str):
    """Animations, pages, and the further pictures that phones hide in a JPEG."""
    first, others = Image.new("RGB", (16, 12), RED), [Image.new("RGB", (16, 12), BLUE), Image.new("RGB", (16, 12))]
    data = save(first, kind, save_all=True, append_images=others)
    assert np.abs(pixels(data).astype(int) - RED).max() <= 4 and pixels(data).shape == (12, 16, 3)
    assert "first frame of several" in converted(data)


TURNS = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1)}
TURNS |= {6: lambda a: np.rot90(a, -1), 7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1), 8: np.rot90}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_turns_the_picture_once(kind: str, orientation: int):
    """Size and pixels are those of the picture as it is shown, and nothing is left that would turn it again."""
    picture = corner(32, 16).resize((64, 32), Image.Resampling.NEAREST)
    data = turned(picture, orientation, kind)
    wanted = TURNS[orientation](np.asarray(picture)).astype(int)
    facts, found = inspect_image(data, "image"), decode_image(data)
    assert (facts.height, facts.width) == wanted.shape[:2] == (found.height, found.width)
    assert np.abs(np.asarray(found).astype(int) - wanted).mean() < 6
    assert facts.converted == ("turned",) and not found.getexif() and not found.info


def test_exif_that_says_nothing_turns_nothing():
    """Upright, out of range and damaged EXIF leave the picture as it is."""
    files = [turned(corner(), 1, "PNG"), turned(corner(), 9, "PNG"), save(corner(), "PNG", exif=b"Exif\0\0MM\0*\0\0")]
    for data in files:
        assert (pixels(data) == np.asarray(corner())).all() and converted(data) == ()


def test_a_picture_of_one_colour_is_kept():
    """It has facts like any other."""
    facts = inspect_image(save(Image.new("RGB", (2, 2), WHITE), "PNG"), "image")
    assert facts.likeness == bytes(32) and facts.converted == ()


VALID = [
    JPEG,
    save(noise(1), "JPEG", progressive=True),
    PNG,
    turned(corner(), 6, "JPEG"),
    turned(corner(), 6, "PNG"),
    save(corner().convert("P"), "PNG", transparency=0),
    save(corner(), "WEBP"),
    save(corner(), "GIF", save_all=True, append_images=[noise(2, 12, 8)]),
    save(corner(), "BMP"),
    save(corner(), "TIFF"),
    save(Image.fromarray(GREY16), "TIFF"),
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([b"", *(data[:12] for data in VALID)]), st.binary(max_size=300))
def test_no_bytes_raise(start: bytes, rest: bytes):
    """Whatever they are, with or without the start of an image, there are facts or a reason."""
    assert isinstance(inspect_image(start + rest, "image"), ImageFacts | BadRow)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(VALID), st.data())
def test_no_damage_raises(data: bytes, draw: st.DataObject):
    """Cut anywhere, with bytes changed, left out or put in, there are facts or a reason, and no warning."""
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(0, len(damaged)))
        width = draw.draw(st.integers(0, 6))
        damaged[place : place + width] = draw.draw(st.binary(max_size=6))
    damaged = damaged[: draw.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(inspect_image(bytes(damaged), "image"), ImageFacts | BadRow)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([JPEG, PNG]), st.floats(0, 0.99))
def test_no_part_of_a_file_passes_for_the_whole(data: bytes, share: float):
    """A JPEG or PNG cut anywhere is refused."""
    assert isinstance(inspect_image(data[: int(share * len(data))], "image"), BadRow)


def likeness(image: Image.Image) -> bytes:
    return inspect_image(save(image, "PNG"), "image").likeness


def share(a: bytes, b: bytes) -> float:
    """Of the bits of two likenesses, the share that is equal."""
    return 1 - sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True)) / (8 * len(a))


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_alike_and_strangers_are_not(seed: int):
    """Compressed again, smaller, larger, brighter: above 0.9. Other scenes and noise: below."""
    picture = scene(seed)
    copies = [
        Image.open(io.BytesIO(save(picture, "JPEG", quality=30))),
        picture.resize((97, 73)),
        picture.resize((640, 480)),
        picture.point(lambda value: 20 + value * 0.8),
    ]
    assert all(share(likeness(picture), likeness(copy)) > 0.9 for copy in copies)
    assert share(likeness(picture), likeness(scene(seed + 100))) < 0.9
    assert share(likeness(noise(seed)), likeness(noise(seed + 100))) < 0.7


def flipped(code: bytes, places: list[int]) -> bytes:
    """The likeness with these bits turned over."""
    bits = int.from_bytes(code)
    for place in places:
        bits ^= 1 << place
    return bits.to_bytes(len(code))


codes = st.binary(min_size=32, max_size=32)
edits = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 255), max_size=90)), max_size=9)


def brute_force(likenesses: list[bytes], threshold: float) -> list[tuple[int, int]]:
    return [p for p in combinations(range(len(likenesses)), 2) if share(*(likenesses[i] for i in p)) >= threshold]


@settings(max_examples=200, deadline=None)
@given(st.lists(codes, min_size=3, max_size=3), edits, st.sampled_from([0.5, 0.75, 0.9, 0.97, 1.0]))
def test_similar_images_are_what_a_full_comparison_finds(originals, changes, threshold):
    """All pairs of a small set, sorted, by the definition."""
    likenesses = [flipped(originals[which], places) for which, places in changes]
    assert similar_images(likenesses, threshold) == brute_force(likenesses, threshold)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.sampled_from([0.75, 0.9, 0.97]))
def test_clusters_of_any_size_are_connected(seed: int, count: int, threshold: float):
    """Pairs of a larger set are true, and their clusters are those of a full comparison."""
    generator = np.random.default_rng(seed)
    bits = generator.integers(0, 2, (3, 256))[generator.integers(0, 3, count)]
    bits ^= generator.random(bits.shape) < generator.choice([0.0, 0.02, 0.1], (count, 1))
    likenesses = [row.tobytes() for row in np.packbits(bits.astype(np.uint8), axis=1)]
    found, wanted = similar_images(likenesses, threshold), brute_force(likenesses, threshold)
    assert set(found) <= set(wanted) and found == sorted(found)

    def clusters(pairs: list[tuple[int, int]]) -> list[int]:
        ends = tuple(np.array(pairs, dtype=int).reshape(-1, 2).T)
        graph = coo_array((np.ones(len(pairs)), ends), shape=(count, count))
        return connected_components(graph, directed=False)[1].tolist()

    assert not count or clusters(found) == clusters(wanted)


def test_copies_are_found_among_many_in_near_linear_time():
    """Every copy among 20,000, at the very threshold; four times as many take less than eight times as long."""
    generator = np.random.default_rng(1)
    bits = generator.integers(0, 2, (10_000, 256), dtype=np.uint8)
    copies = bits.copy()
    np.put_along_axis(copies, generator.random(bits.shape).argsort(axis=1)[:, :25], 2, axis=1)
    copies = np.where(copies == 2, 1 - bits, copies)
    packed = np.packbits(np.stack([bits, copies], axis=1).reshape(20_000, 256), axis=1)
    likenesses = [row.tobytes() for row in packed]
    seconds = []
    for count in (5_000, 20_000):
        start = time.process_time()
        assert set(similar_images(likenesses[:count], 0.9)) >= {(i, i + 1) for i in range(0, count, 2)}
        seconds.append(time.process_time() - start)
    assert seconds[1] < 8 * seconds[0]


def test_many_copies_of_one_picture_are_chained():
    """5,000 equal pictures give some pairs a picture, not all twelve million, and one cluster."""
    pairs = similar_images([bytes(32)] * 5_000, 0.9)
    assert len(pairs) < 9 * 5_000
    assert {(i, i + 1) for i in range(4_999)} <= set(pairs)
