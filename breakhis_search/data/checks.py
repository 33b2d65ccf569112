"""What can be wrong with a folder of BreaKHis images, found by pure functions, with a remedy each.

An *error* keeps an image out of every study; a *notice* tells a fact the reader should know.
Paths are relative to the dataset root (``…/histology_slides/breast``), with forward slashes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import pandas as pd

from breakhis_search.data.taxonomy import (
    FULL_SET_IMAGES,
    FULL_SET_SLIDE_FOLDERS,
    MAGNIFICATIONS,
    TUMOR_TYPES,
    ImageName,
    parse_image_name,
)

Severity = Literal["error", "notice"]
ProblemKind = Literal[
    "bad_name",
    "contradicts_folder",
    "unreadable",
    "empty",
    "not_an_image",
    "truncated",
    "damaged",
    "wrong_mode",
    "too_large",
    "contradictory_pixels",
    "duplicate_pixels",
    "near_duplicate",
    "two_types",
    "unknown_file",
    "wrong_count",
    "partial_set",
]

KNOWN_TWICE_FILED_SLIDE = "14-13412"
"""The one slide of the published set that lies under two types: ductal and lobular carcinoma."""

_UNPACK_AGAIN = "unpack the archive again, or delete the file"
_FACTS: dict[ProblemKind, tuple[Severity, str]] = {
    "bad_name": ("error", "give the file its original name, or move it out of the dataset folder"),
    "contradicts_folder": ("error", "move the file to the folder its name belongs to"),
    "unreadable": ("error", "give yourself read permission, or mend the link or the disk"),
    "empty": ("error", _UNPACK_AGAIN),
    "not_an_image": ("error", _UNPACK_AGAIN),
    "truncated": ("error", _UNPACK_AGAIN),
    "damaged": ("error", _UNPACK_AGAIN),
    "wrong_mode": ("error", "put the original file back: it is 8-bit RGB without alpha"),
    "too_large": ("error", "put the original file back: it is about 700 x 460 px"),
    "contradictory_pixels": ("error", "find out which label is right and delete the other copy"),
    "duplicate_pixels": ("notice", "nothing: their patient groups are joined, so none leaks"),
    "near_duplicate": (
        "notice",
        "look at both pictures; if they show the same tissue, move one out of the dataset folder",
    ),
    "two_types": ("notice", "nothing: multiclass leaves the slide out, binary keeps one copy"),
    "unknown_file": ("notice", "nothing: it is not used; move it away if it disturbs"),
    "wrong_count": ("error", "unpack the archive again over this folder"),
    "partial_set": ("notice", "nothing if this is meant; else unpack the whole archive"),
}

# What operating systems, file managers and archivers leave behind; hidden ones go by their dot.
_DROPPINGS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"})


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or worth knowing, about the images on disk.

    Attributes:
        path: The file or folder, relative to the dataset root; ``.`` for the whole set.
        kind: What it is, as a word for programs.
        detail: What it is, in words.
        remedy: What to do about it.
        severity: ``error`` keeps the image out; ``notice`` does not.
    """

    path: str
    kind: ProblemKind
    detail: str
    remedy: str
    severity: Severity


def make_problem(kind: ProblemKind, path: str, detail: str) -> Problem:
    """Return a problem with the severity and the remedy of its kind.

    >>> make_problem("empty", "benign/a.png", "the file is empty").severity
    'error'
    """
    severity, remedy = _FACTS[kind]
    return Problem(path=path, kind=kind, detail=detail, remedy=remedy, severity=severity)


def is_dropping(name: str) -> bool:
    """Return whether a file or folder is left behind by a system rather than put there by someone.

    >>> [is_dropping(name) for name in (".DS_Store", "Thumbs.db", "README.txt")]
    [True, True, False]
    """
    return name.startswith(".") or name.lower() in _DROPPINGS


def canonical_path(name: str, image: ImageName) -> str:
    """Return where a file of that name lies in the original tree, relative to the dataset root.

    >>> name = "SOB_B_A-14-22549AB-100-001.png"
    >>> canonical_path(name, parse_image_name(name))
    'benign/SOB/adenosis/SOB_B_A_14-22549AB/100X/SOB_B_A-14-22549AB-100-001.png'
    """
    kind = image.type
    slide_folder = f"SOB_{kind.label[0].upper()}_{kind.code}_{image.slide}"
    return f"{kind.label}/SOB/{kind.name}/{slide_folder}/{image.magnification}X/{name}"


def check_name(path: str) -> Problem | None:
    """Return what is wrong with a file's name or place; ``None`` for a BreaKHis image in place.

    >>> check_name("notes.txt").kind
    'unknown_file'
    >>> check_name("benign/SOB/adenosis/copy.png").kind
    'bad_name'
    """
    file = PurePosixPath(path)
    image = parse_image_name(file.name)
    if image is not None:
        return _check_place(path, canonical_path(file.name, image))
    if file.suffix.lower() == ".png" or file.name.startswith("SOB_"):
        expected = "SOB_{B|M}_{TYPE}-{YEAR}-{SLIDE}-{40|100|200|400}-{NNN}.png with its own label"
        return make_problem("bad_name", path, f"not a BreaKHis name: expected {expected}")
    return make_problem("unknown_file", path, "not a BreaKHis image")


def check_duplicates(table: pd.DataFrame) -> tuple[Problem, ...]:
    """Return what pixel-identical images mean: errors across labels, else one notice per slides.

    Copies inside a slide that is filed under two types are left to `check_slide_types`.

    Args:
        table: A catalog table; rows without ``pixel_sha256`` are passed over.
    """
    rows = table[(table["pixel_sha256"] != "") & table["pixel_sha256"].duplicated(keep=False)]
    errors: list[Problem] = []
    by_slides: dict[tuple[str, ...], list[list[str]]] = {}
    for _, copies in rows.sort_values("path").groupby("pixel_sha256", sort=False):
        paths = [str(path) for path in copies["path"]]
        if copies["label"].nunique() > 1:
            errors += _contradictory(paths)
        elif copies["slide"].nunique() > 1 or copies["type"].nunique() == 1:
            by_slides.setdefault(tuple(sorted(set(copies["slide"]))), []).append(paths)
    notices = (_identical(slides, sets) for slides, sets in by_slides.items())
    return (*errors, *notices)


def check_slide_types(table: pd.DataFrame) -> tuple[Problem, ...]:
    """Return one notice per slide that is filed under more than one tumour type.

    Args:
        table: A catalog table.
    """
    types = table.groupby("slide")["type"].nunique()
    return tuple(
        _two_types(str(slide), table[table["slide"] == slide])
        for slide in sorted(types.index[types > 1])
    )


def is_full_set(slide_folders: Collection[str]) -> bool:
    """Return whether all 82 slide folders of the published set are there, counted by type.

    Args:
        slide_folders: As ``benign/SOB/adenosis/SOB_B_A_14-22549AB``.
    """
    found = Counter(PurePosixPath(folder).parent.name for folder in slide_folders)
    return all(found[t.name] >= t.slides for t in TUMOR_TYPES)


def check_counts(paths: Iterable[str], slide_folders: Collection[str]) -> tuple[Problem, ...]:
    """Return where the full set has other counts than published, or that the set is partial.

    Args:
        paths: Images that bear a BreaKHis name and lie in its place, whether or not they decode.
        slide_folders: As ``benign/SOB/adenosis/SOB_B_A_14-22549AB``.
    """
    images = [parse_image_name(PurePosixPath(path).name) for path in paths]
    found = Counter((image.type.name, image.magnification) for image in images if image)
    if not is_full_set(slide_folders):
        detail = (
            f"partial set: {found.total():,} of {FULL_SET_IMAGES:,} images, {len(slide_folders)} "
            f"of {FULL_SET_SLIDE_FOLDERS} slide folders"
        )
        return (make_problem("partial_set", ".", detail),)
    return tuple(
        make_problem(
            "wrong_count",
            f"{kind.label}/SOB/{kind.name}",
            f"{magnification}X: expected {expected} images, received "
            f"{found[kind.name, magnification]}",
        )
        for kind in TUMOR_TYPES
        for magnification, expected in zip(MAGNIFICATIONS, kind.images, strict=True)
        if found[kind.name, magnification] != expected
    )


def _check_place(path: str, expected: str) -> Problem | None:
    if path == expected:
        return None
    received, wanted = PurePosixPath(path).parent, PurePosixPath(expected).parent
    differing = [
        f"{mine} (name) against {theirs} (folder)"
        for mine, theirs in zip(wanted.parts, received.parts, strict=False)
        if mine != theirs
    ]
    if len(wanted.parts) != len(received.parts):
        differing = [f"it lies in {received}"]
    detail = f"name contradicts folder: {', '.join(differing)}; expected in {wanted}"
    return make_problem("contradicts_folder", path, detail)


def _contradictory(paths: list[str]) -> list[Problem]:
    """One error for each copy of a picture that is filed as benign and as malignant."""
    return [
        make_problem(
            "contradictory_pixels",
            path,
            "the same pixels are filed under the other label: "
            + ", ".join(other for other in paths if other != path),
        )
        for path in paths
    ]


def _identical(slides: tuple[str, ...], sets: list[list[str]]) -> Problem:
    first = sets[0]
    detail = (
        f"{len(sets)} picture{'s' if len(sets) > 1 else ''} stored more than once in slide"
        f"{'s' if len(slides) > 1 else ''} {', '.join(slides)}, such as "
        f"{' = '.join(PurePosixPath(path).name for path in first)}"
    )
    return make_problem("duplicate_pixels", first[0], detail)


def _two_types(slide: str, rows: pd.DataFrame) -> Problem:
    names = [t.name for t in TUMOR_TYPES if t.name in set(rows["type"])]
    hashes = rows.loc[rows["pixel_sha256"] != "", "pixel_sha256"]
    copies = int(hashes.duplicated().sum())
    known = " (a known fact of BreaKHis)" if slide == KNOWN_TWICE_FILED_SLIDE else ""
    same = f"; {copies} pictures are pixel-identical" if copies else ""
    detail = f"slide {slide} is filed under {' and '.join(names)}{known}{same}"
    first = str(rows["path"].min())
    return make_problem("two_types", str(PurePosixPath(first).parent.parent), detail)
