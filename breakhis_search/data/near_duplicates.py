"""Pictures of different patients that look alike: a leak that equal pixels do not show.

A picture saved again (JPEG, another size, a little brighter) or turned has other pixels and the
same content. Each image therefore gets a perceptual hash when it is first read, and pairs of
different patients whose hashes differ in few bits are reported. They are notices, no errors: a
person has to look.

The hash is that of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
(2010), with two changes that make a turned copy recognisable from the hash alone: the bit of a DCT
coefficient is its sign, not its side of the median (the signs of a mirrored picture follow from
those of the picture), and the coefficients of pure rows and columns are left out. It is 64 bits of
``cv2.dct``; the library ImageHash would bring Pillow, SciPy and PyWavelets and cannot do the turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from breakhis_search.data.checks import Problem, make_problem
from breakhis_search.data.cohort import join_groups

MAX_DISTANCE = 10
"""Bits in which an upright copy may differ. See ``docs/protocols.md`` for the table this was read
from: on 341 real images, copies (JPEG down to quality 20, sizes from a quarter to one and a half,
brightness ± 30, contrast, gamma, blur, 2 % cropped) differ in at most 10 bits, pictures of
different patients in 16 or more, and as if each bit were drawn by a coin: 0.3 false alarms are to
be expected among the 31 million pairs of the full set."""

MAX_DISTANCE_TURNED = 8
"""The same for the seven turned and mirrored copies: seven more tries for chance, so two bits less
(0.06 false alarms to be expected on the full set)."""

_SIDE = 32  # of the grey thumbnail: details below 1/32 of the picture do not count
_KEPT = slice(1, 9)  # lowest eight frequencies of each axis; 0 is constant along the axis
_BITS = 64
_FLAT = 1.0  # grey levels (of 255): a thumbnail that varies less has no content to compare
_BLOCK = 512  # rows compared at once: 32 MB for the full set

UInt64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures of different patients that look alike.

    Attributes:
        first: Position of one picture.
        second: Position of the other, behind it.
        distance: Bits in which their hashes differ, 0 to 64.
        turned: Whether one is a turned or mirrored copy of the other.
    """

    first: int
    second: int
    distance: int
    turned: bool


def perceptual_hash(pixels: npt.NDArray[np.uint8]) -> str:
    """Return the hash of a picture, 16 hex digits; empty for a picture without content.

    Args:
        pixels: uint8 [h, w, 3], RGB.

    >>> perceptual_hash(np.full((46, 70, 3), 200, np.uint8))
    ''
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    if small.std() < _FLAT:
        return ""
    signs = cv2.dct(small)[_KEPT, _KEPT] > 0
    return np.packbits(signs).tobytes().hex()


def find_near_duplicates(hashes: Sequence[str], patients: Sequence[str]) -> list[NearDuplicate]:
    """Return the pairs of different patients that look alike, closest first.

    Args:
        hashes: Of every picture, as `perceptual_hash` gives them; empty ones match nothing.
        patients: Whose picture it is; pairs of one patient are no leak.
    """
    known = [i for i, text in enumerate(hashes) if text]
    if len(known) < 2:
        return []
    bits = np.array([int(hashes[i], 16) for i in known], dtype=np.uint64)
    owners = np.unique(np.asarray(patients)[known], return_inverse=True)[1]
    closest: dict[tuple[int, int], NearDuplicate] = {}
    for turned, variant in enumerate(eight_variants(bits)):
        limit = MAX_DISTANCE_TURNED if turned else MAX_DISTANCE
        for i, j, distance in _pairs(bits, variant, owners, limit):
            pair = NearDuplicate(known[i], known[j], distance, bool(turned))
            before = closest.get((i, j))
            if before is None or distance < before.distance:
                closest[i, j] = pair
    return sorted(closest.values(), key=lambda p: (p.distance, p.first, p.second))


def eight_variants(bits: UInt64Array) -> Iterator[UInt64Array]:
    """Yield the hashes of the pictures as they are, then of their seven turned and mirrored copies.

    Mirroring an axis changes the sign of its odd frequencies; turning by a quarter exchanges the
    axes. Both are true of the DCT-II that the hash is made of.
    """
    odd = np.arange(1, 9) % 2 == 1
    columns = _packed(np.broadcast_to(odd, (8, 8)))
    rows = _packed(np.broadcast_to(odd[:, None], (8, 8)))
    for axes in (bits, _transposed(bits)):
        for mirror in (np.uint64(0), columns, rows, columns ^ rows):
            yield axes ^ mirror


def check_near_duplicates(table: pd.DataFrame) -> tuple[Problem, ...]:
    """Return one notice for every two patients who have pictures that look alike.

    Pixel-identical pictures are not meant: they join their patients and are told elsewhere.

    Args:
        table: A catalog table; rows without ``perceptual_hash`` are passed over.
    """
    patients = join_groups(table, "accession")
    found: dict[tuple[str, str], list[NearDuplicate]] = {}
    for pair in find_near_duplicates(table["perceptual_hash"].tolist(), patients.tolist()):
        one, other = sorted((patients.iloc[pair.first], patients.iloc[pair.second]))
        found.setdefault((one, other), []).append(pair)
    paths = table["path"].tolist()
    return tuple(_notice(paths, whose, pairs) for whose, pairs in found.items())


def _packed(signs: npt.NDArray[np.bool_]) -> np.uint64:
    """One hash from its 64 bits, bool [8, 8]; the first is the highest."""
    return np.uint64(int.from_bytes(np.packbits(signs).tobytes(), "big"))


def _transposed(bits: UInt64Array) -> UInt64Array:
    """The hashes with rows and columns of frequencies exchanged."""
    octets = bits.astype(">u8").view(np.uint8).reshape(-1, 8)
    signs = np.unpackbits(octets, axis=1).reshape(-1, 8, 8).transpose(0, 2, 1)
    packed = np.packbits(signs.reshape(-1, _BITS), axis=1)
    turned: UInt64Array = packed.view(">u8").reshape(-1).astype(np.uint64)
    return turned


def _pairs(
    bits: UInt64Array, variant: UInt64Array, owners: npt.NDArray[np.int64], limit: int
) -> Iterator[tuple[int, int, int]]:
    """Positions i < j of different owners, and how many bits i differs from the variant of j."""
    for start in range(0, len(bits), _BLOCK):
        block = slice(start, start + _BLOCK)
        distance = np.bitwise_count(bits[block, None] ^ variant[None, start:])
        rows, columns = np.nonzero(distance <= limit)
        wanted = (rows < columns) & (owners[start + rows] != owners[start + columns])
        for i, j in zip(rows[wanted], columns[wanted], strict=True):
            yield start + int(i), start + int(j), int(distance[i, j])


def _notice(paths: list[str], whose: tuple[str, str], pairs: list[NearDuplicate]) -> Problem:
    closest = pairs[0]
    first, second = paths[closest.first], paths[closest.second]
    how = "a turned or mirrored copy" if closest.turned else "a copy"
    more = f"; so do {len(pairs) - 1} more pairs of these two" if len(pairs) > 1 else ""
    detail = (
        f"looks like {how} of {PurePosixPath(second).name}, a picture of another patient"
        f" ({whose[0]} and {whose[1]}; {closest.distance} of {_BITS} bits differ){more}"
    )
    return make_problem("near_duplicate", first, detail)
