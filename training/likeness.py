"""Pictures in, fingerprints out; and for each fingerprint, which of others is nearly the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from service.decode import fit
from service.manifest import Input

HASHED = Input(height=8, width=9, resize="squash")
# ITU-R BT.601, as Pillow's own grey.
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

MAX_BITS = 4
MAX_COLOURS = 8.0
# Pairs of hashes, and of colours, compared at once: some 100 MB.
HASH_PAIRS, COLOUR_PAIRS = 4_000_000, 20_000


class Fingerprints(NamedTuple):
    """What is kept of N pictures to compare them: 224 bytes each."""

    hashes: NDArray[np.uint64]
    """[N], difference hashes."""
    colours: NDArray[np.uint8]
    """[N, 216], the pictures at 9 x 8 pixels, RGB."""


class Alike(NamedTuple):
    """For each of N pictures the most alike of others."""

    nearest: NDArray[np.intp]
    """[N], indices into the others; -1 where none is nearly the same."""
    bits: NDArray[np.uint8]
    """[N], differing bits of the hashes; 0 where there is none."""
    colours: NDArray[np.float32]
    """[N], root mean square difference of the colours, in levels of 255; infinite where there is none."""


def fingerprint(image: Image) -> Fingerprints:
    """The fingerprint of one RGB picture (N = 1).

    The hash is the difference hash of N. Krawetz, "Kind of Like That", The Hacker Factor Blog, January 2013: the grey
    picture at 9 x 8 pixels, a bit for each pixel that is darker than its right neighbour. It stays the same when a
    picture is scaled, compressed, or evenly brightened.
    """
    pixels = fit(image, HASHED)
    grey = np.rint(pixels @ LUMA)
    hashes = np.packbits(grey[:, :-1] < grey[:, 1:]).view(np.uint64)
    # A copy: an array that Pillow lends keeps its picture alive, some 11 KB.
    return Fingerprints(hashes, pixels.reshape(1, -1).copy())


def gather(fingerprints: Sequence[Fingerprints]) -> Fingerprints:
    """Many as one."""
    if not fingerprints:
        return Fingerprints(np.empty(0, np.uint64), np.empty((0, HASHED.height * HASHED.width * 3), np.uint8))
    hashes, colours = zip(*fingerprints, strict=True)
    return Fingerprints(np.concatenate(hashes), np.concatenate(colours))


def most_alike(pictures: Fingerprints, others: Fingerprints) -> Alike:
    """For each picture the one of `others` with the nearest colours, of those that are nearly the same.

    Nearly the same: at most `MAX_BITS` bits of the hashes differ and the colours by at most `MAX_COLOURS`. The hash
    alone knows no colour: on a white ground an orange has the hash of an apricot.
    """
    count, step = len(pictures.hashes), max(1, HASH_PAIRS // max(1, len(others.hashes)))
    found = Alike(np.full(count, -1), np.zeros(count, np.uint8), np.full(count, np.inf, np.float32))
    for start in range(0, count, step):
        bits = np.bitwise_count(pictures.hashes[start : start + step, None] ^ others.hashes)
        rows, candidates = np.nonzero(bits <= MAX_BITS)
        colours = _differences(pictures.colours, start + rows, others.colours, candidates)
        near = colours <= MAX_COLOURS
        rows, candidates, colours = rows[near], candidates[near], colours[near]
        order = np.lexsort((colours, rows))
        _, first = np.unique(rows[order], return_index=True)
        best = order[first]
        found.nearest[start + rows[best]] = candidates[best]
        found.bits[start + rows[best]] = bits[rows[best], candidates[best]]
        found.colours[start + rows[best]] = colours[best]
    return found


def _differences(
    ours: NDArray[np.uint8], rows: NDArray[np.intp], others: NDArray[np.uint8], candidates: NDArray[np.intp]
) -> NDArray[np.float32]:
    """[P], the root mean square difference of each of P of ours to its candidate, in levels of 255."""
    differences = np.empty(len(candidates), np.float32)
    for start in range(0, len(candidates), COLOUR_PAIRS):
        pairs = slice(start, start + COLOUR_PAIRS)
        difference = ours[rows[pairs]].astype(np.float32) - others[candidates[pairs]]
        differences[pairs] = np.sqrt(np.square(difference).mean(axis=1))
    return differences
