"""What is told of a landed picture, whether it can be trained on, and which pictures are like each other.

Two pictures that are mostly empty are like each other. Not here: how a picture is read, which the models' part knows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from graftwork.data.quarantine import BadRow
from graftwork.data.sources import reference_of
from graftwork.models.serving.pictures import UnusableImage, read_image

LIKENESS_SIDE = 16
LIKENESS_BITS = LIKENESS_SIDE**2
# In a bucket each picture is compared with so many neighbours on, and every pair found is reported; ...
NEIGHBOURS = 8
# ... and with those up to here, of which only pairs are reported that connect what was not connected. Pictures fill the
# buckets unevenly. Of 20,000 smooth likenesses, half of them copies with 20 bits changed, 4.0 million pairs agree in
# 0.9; short of a connection are 325 of them at a reach of 64 (0.6 s), 19 at 256 (1.2 s), 1 at 1024 (3.2 s).
REACH = 256


@dataclass(frozen=True)
class ImageFacts:
    """What a manifest keeps of an image. Width and height are those of the picture as it is shown, turned by EXIF.

    reference: names it, equal for equal files; equal pixels in other files, which another version of a decoder may read
    otherwise, have an equal likeness.
    likeness: 256 bits that nearly agree for nearly the same picture. converted: what the rules did to it, sorted.
    """

    reference: str
    width: int
    height: int
    likeness: bytes
    converted: tuple[str, ...]


def inspect_image(data: bytes, column: str) -> ImageFacts | BadRow:
    """The facts about the image in these bytes, or why it can't be trained on; the whole picture is decoded."""
    try:
        image, converted = read_image(data)
    except UnusableImage as error:
        return BadRow(column, error.reason, error.value)
    return ImageFacts(reference_of(data), image.width, image.height, _likeness(image), tuple(sorted(converted)))


def similar_images(likenesses: Sequence[bytes], threshold: float) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, sorted, whose share of equal bits is at least `threshold`; enough to connect each cluster.

    Method: at most t bits of such a pair differ, so of t + 1 bands one agrees whole (pigeonhole principle). Pairs that
    meet in a band are verified. Every pair is reported whose two are at most `NEIGHBOURS` apart in a bucket; of those
    up to `REACH` apart, the pairs that connect. In a fuller bucket of a large set a pair can be missed.
    """
    if len(likenesses) < 2:
        return []
    packed = np.frombuffer(b"".join(likenesses), dtype=np.uint8).reshape(len(likenesses), LIKENESS_BITS // 8)
    bits = np.unpackbits(packed, axis=1)
    allowed = LIKENESS_BITS - math.ceil(threshold * LIKENESS_BITS)
    bands = min(max(allowed, 0) + 1, LIKENESS_BITS)
    bounds = [band * LIKENESS_BITS // bands for band in range(bands + 1)]
    clusters = np.arange(len(likenesses))
    found: list[np.ndarray] = []
    for start, stop in pairwise(bounds):
        found += _meet(packed, bits, start, stop, allowed, clusters)
    pairs = np.unique(np.concatenate(found))
    firsts, seconds = np.divmod(pairs, len(likenesses))
    return list(zip(firsts.tolist(), seconds.tolist(), strict=True))


def _likeness(image: Image.Image) -> bytes:
    """A bit for each two neighbours in a row of the small grey picture: is the right one brighter? Rows from above.

    Method: difference hash (Krawetz 2013). The filter is that of the highest agreement among copies of other sizes.
    """
    small = image.convert("L").resize((LIKENESS_SIDE + 1, LIKENESS_SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


def _meet(
    packed: np.ndarray, bits: np.ndarray, start: int, stop: int, allowed: int, clusters: np.ndarray
) -> list[np.ndarray]:
    """Verified pairs among those that agree in the bits from start to stop, each as first * count + second.

    clusters: the smallest member of each one's cluster, brought up to date. Within a bucket likenesses are sorted by
    the bits that follow, so that those that are the same stand together.
    """
    count = len(packed)
    turned = np.packbits(np.roll(bits, -start, axis=1), axis=1).view(">u8")
    order = np.lexsort(turned.T[::-1])
    band = bits[order, start:stop]
    bucket = np.concatenate([[0], np.cumsum((band[1:] != band[:-1]).any(axis=1))])
    words = np.ascontiguousarray(packed[order].view(np.uint64).T)
    found: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for distance in range(1, min(REACH, count - 1) + 1):
        if not (bucket[distance:] == bucket[:-distance]).any():
            break
        differing = np.bitwise_count(words[:, distance:] ^ words[:, :-distance]).sum(axis=0, dtype=np.uint16)
        hits = np.flatnonzero(differing <= allowed)
        left, right = order[hits], order[hits + distance]
        if distance > NEIGHBOURS:
            new = clusters[left] != clusters[right]
            left, right = left[new], right[new]
        _connect(clusters, left, right)
        found.append(np.minimum(left, right) * count + np.maximum(left, right))
    return found


def _connect(clusters: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Join the clusters of each pair: every member is led to the smallest one."""
    while (clusters[left] != clusters[right]).any():
        low, high = np.sort([clusters[left], clusters[right]], axis=0)
        np.minimum.at(clusters, high, low)
        while (clusters != clusters[clusters]).any():
            clusters[:] = clusters[clusters]
