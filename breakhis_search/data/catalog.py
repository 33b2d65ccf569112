"""From a folder to a checked table: which images there are, whose, and whether they can be used.

Every image is read, hashed and decoded once; later starts look only at the folder's listing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from breakhis_search.data import checks
from breakhis_search.data.checks import Problem
from breakhis_search.data.inspection import Finding, Progress, inspect_files
from breakhis_search.data.location import find_dataset_root
from breakhis_search.data.near_duplicates import check_near_duplicates
from breakhis_search.data.taxonomy import MAGNIFICATIONS, TUMOR_TYPES, parse_image_name
from breakhis_search.errors import BadImagesError

__all__ = [
    "COLUMNS",
    "Catalog",
    "Problem",
    "describe",
    "find_dataset_root",
    "fingerprint_of",
    "read_catalog",
    "table_from_names",
]

COLUMNS = {
    "path": "str",
    "label": "str",
    "type": "str",
    "slide": "str",
    "accession": "str",
    "magnification": "int64",
    "sequence": "int64",
    "sha256": "str",
    "pixel_sha256": "str",
    "perceptual_hash": "str",
    "width_px": "int64",
    "height_px": "int64",
}
"""Columns of a catalog table and their types."""

_FIRST_SHOWN = 3


@dataclass(frozen=True)
class Catalog:
    """The images of one dataset folder, checked.

    Attributes:
        root: The ``…/histology_slides/breast`` folder.
        table: One row per usable image, sorted by path; columns as in `COLUMNS`.
        problems: All that is wrong or worth knowing, errors first.
        fingerprint: sha256 over path and content of the usable images, the same on every machine.
        is_full_set: Whether all 82 slide folders of the published set are there.
    """

    root: Path
    table: pd.DataFrame
    problems: tuple[Problem, ...]
    fingerprint: str
    is_full_set: bool

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep images out."""
        return tuple(p for p in self.problems if p.severity == "error")

    def require_usable(self, on_bad_image: Literal["error", "skip"]) -> Catalog:
        """Return this catalog if a study may use it.

        Args:
            on_bad_image: ``error`` refuses a folder with any error; ``skip`` goes on with the good
                images, which are the rows of the table.

        Raises:
            BadImagesError: There are errors and none may be, or no image is usable.
        """
        if self.errors and on_bad_image == "error":
            raise self._bad_images()
        if self.table.empty:
            raise BadImagesError(
                f"no usable image in {self.root}",
                expected="PNG files with their original BreaKHis names and folders",
                received=_summarise(self.errors) if self.errors else "no such file at all",
                remedy="unpack the whole archive again",
            )
        return self

    def _bad_images(self) -> BadImagesError:
        count = len(self.errors)
        return BadImagesError(
            f"{count} problem{'s' if count > 1 else ''} with the images in {self.root}",
            received=_summarise(self.errors),
            remedy="`python -m breakhis_search data check` shows all; "
            "`--set data.on_bad_image=skip` leaves them out",
        )


@dataclass(frozen=True)
class _Listing:
    """What a walk over the folder gave; paths are relative to the root and sorted."""

    files: tuple[str, ...]
    slide_folders: tuple[str, ...]
    problems: tuple[Problem, ...]


def read_catalog(folder: Path, *, cache_dir: Path, progress: Progress | None = None) -> Catalog:
    """Return the checked catalog of a dataset folder.

    Every image is read, hashed and fully decoded once; what was found is kept in
    ``cache_dir/catalog`` by path, size and time of change.

    Args:
        folder: As for `find_dataset_root`.
        cache_dir: Where findings are kept between starts.
        progress: Called with (images done, images in all).

    Raises:
        DatasetNotFoundError: As `find_dataset_root`.
        DataError: The findings cannot be kept in ``cache_dir``.
    """
    root = find_dataset_root(folder)
    listing = _walk(root)
    misplaced = [problem for path in listing.files if (problem := checks.check_name(path))]
    placed = sorted(set(listing.files) - {problem.path for problem in misplaced})
    findings = inspect_files(root, placed, cache_dir=cache_dir, progress=progress)
    table, unusable = _judge(findings)
    problems = (
        *listing.problems,
        *misplaced,
        *unusable,
        *checks.check_slide_types(table),
        *check_near_duplicates(table),
        *checks.check_counts(placed, listing.slide_folders),
    )
    return Catalog(
        root=root,
        table=table,
        problems=tuple(sorted(problems, key=lambda p: (p.severity, p.path, p.kind))),
        fingerprint=fingerprint_of(table),
        is_full_set=checks.is_full_set(listing.slide_folders),
    )


def fingerprint_of(table: pd.DataFrame) -> str:
    """Return the sha256 (hex) of a catalog table's paths and contents, whatever their order."""
    digest = hashlib.sha256()
    for path, sha256 in sorted(zip(table["path"], table["sha256"], strict=True)):
        digest.update(f"{path}\0{sha256}\n".encode())
    return digest.hexdigest()


def _walk(root: Path) -> _Listing:
    """Return files and slide folders below the root; links are followed, never in a circle."""
    files: list[str] = []
    folders: list[str] = []
    problems: list[Problem] = []

    def note_unreadable(error: OSError) -> None:
        path = Path(error.filename).relative_to(root).as_posix()
        problems.append(checks.make_problem("unreadable", path, f"folder: {error.strerror}"))

    seen = {root}
    for parent, subfolders, names in os.walk(root, onerror=note_unreadable, followlinks=True):
        here = Path(parent)
        kept = [n for n in sorted(subfolders) if not checks.is_dropping(n)]
        subfolders[:] = [n for n in kept if not _is_seen(here / n, seen)]
        relative = here.relative_to(root)
        files += [(relative / n).as_posix() for n in names if not checks.is_dropping(n)]
        if len(relative.parts) == len(("label", "SOB", "type")):
            folders += [(relative / n).as_posix() for n in subfolders]
    return _Listing(tuple(sorted(files)), tuple(sorted(folders)), tuple(problems))


def _judge(findings: Mapping[str, Finding]) -> tuple[pd.DataFrame, list[Problem]]:
    """Return the table of usable images, and what is wrong with the others or worth knowing."""
    bad = [
        checks.make_problem(finding.kind, path, finding.detail)
        for path, finding in findings.items()
        if finding.kind
    ]
    table = _make_table({path: found for path, found in findings.items() if not found.kind})
    doubles = checks.check_duplicates(table)
    contradictory = [problem.path for problem in doubles if problem.severity == "error"]
    table = table[~table["path"].isin(contradictory)].reset_index(drop=True)
    return table, [*bad, *doubles]


def _is_seen(folder: Path, seen: set[Path]) -> bool:
    """Return whether a linked folder was walked before; remember it."""
    real = folder.resolve()
    if real in seen:
        return True
    seen.add(real)
    return False


def table_from_names(names: Iterable[str]) -> pd.DataFrame:
    """Return a catalog table of file names alone: hashes are empty and sizes 0.

    It is enough to count, split and prove splits on the full set without its pixels.

    Args:
        names: File names such as ``SOB_B_A-14-22549AB-100-001.png``, in any order.

    Raises:
        BadImagesError: A name is not a BreaKHis name, or occurs twice.

    >>> row = table_from_names(["SOB_B_A-14-22549AB-100-001.png"]).iloc[0]
    >>> row["type"], row["slide"], row["accession"]
    ('adenosis', '14-22549AB', '14-22549')
    """
    findings: dict[str, Finding] = {}
    for name in names:
        image = parse_image_name(name)
        path = checks.canonical_path(name, image) if image else name
        if image is None or path in findings:
            raise BadImagesError(
                "a list of file names cannot be used",
                expected="BreaKHis names, each once",
                received=f"{name!r}{' a second time' if image else ''}",
                remedy="mend the list",
            )
        findings[path] = Finding()
    return _make_table(findings)


def describe(table: pd.DataFrame) -> pd.DataFrame:
    """Return counts per tumour type, int64: images by magnification and in all, slides, accessions.

    The last row, ``total``, counts slides and accessions once even if they occur under two types.

    Args:
        table: A catalog table.

    Returns:
        Rows: the types that occur, in taxonomy order, then ``total``. Columns: ``40X``, ``100X``,
        ``200X``, ``400X``, ``total``, ``slides``, ``accessions``.
    """
    present = set(table["type"])
    rows = {t.name: table[table["type"] == t.name] for t in TUMOR_TYPES if t.name in present}
    counts = {name: _count(images) for name, images in {**rows, "total": table}.items()}
    return pd.DataFrame.from_dict(counts, orient="index").rename_axis("type")


def _count(images: pd.DataFrame) -> dict[str, int]:
    by_magnification = {f"{m}X": int((images["magnification"] == m).sum()) for m in MAGNIFICATIONS}
    return {
        **by_magnification,
        "total": len(images),
        "slides": images["slide"].nunique(),
        "accessions": images["accession"].nunique(),
    }


def _make_table(findings: Mapping[str, Finding]) -> pd.DataFrame:
    """Return the catalog table of images whose names and places are right."""
    rows = [_make_row(path, findings[path]) for path in sorted(findings)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _make_row(path: str, finding: Finding) -> dict[str, Any]:
    image = parse_image_name(path.rsplit("/", 1)[-1])
    if image is None:
        raise ValueError(f"expected the path of a BreaKHis image, received {path!r}")
    return {
        "path": path,
        "label": image.type.label,
        "type": image.type.name,
        "slide": image.slide,
        "accession": image.accession,
        "magnification": image.magnification,
        "sequence": image.sequence,
        "sha256": finding.sha256,
        "pixel_sha256": finding.pixel_sha256,
        "perceptual_hash": finding.perceptual_hash,
        "width_px": finding.width_px,
        "height_px": finding.height_px,
    }


def _summarise(problems: tuple[Problem, ...]) -> str:
    """Return the first few problems in words."""
    shown = "; ".join(f"{p.path}: {p.detail}" for p in problems[:_FIRST_SHOWN])
    more = len(problems) - _FIRST_SHOWN
    return f"{shown}; and {more:,} more" if more > 0 else shown
