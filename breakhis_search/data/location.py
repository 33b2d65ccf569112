"""Where in a given folder the BreaKHis tree lies, or in words what lies there instead."""

from __future__ import annotations

from pathlib import Path

from breakhis_search.data.checks import is_dropping
from breakhis_search.data.taxonomy import TUMOR_TYPES
from breakhis_search.errors import DatasetNotFoundError

_TREE = "histology_slides/breast"
_PLACES = ("", "breast", _TREE, f"BreaKHis_v1/{_TREE}", f"BreaKHis_v1/BreaKHis_v1/{_TREE}")
_FIRST_SHOWN = 3


def find_dataset_root(folder: Path) -> Path:
    """Return the absolute ``…/histology_slides/breast`` folder of a BreaKHis tree.

    Args:
        folder: It, or a folder above it: ``histology_slides``, ``BreaKHis_v1``, the folder that
            holds ``BreaKHis_v1``, or Kaggle's ``BreaKHis_v1/BreaKHis_v1``.

    Raises:
        DatasetNotFoundError: Nothing is there, a file is there, or the folder holds no BreaKHis.
    """
    folder = Path(folder)
    try:
        for place in _PLACES:
            if any((folder / place / t.label / "SOB").is_dir() for t in TUMOR_TYPES):
                return (folder / place).resolve()
        raise _not_found(folder)
    except OSError as error:
        raise DatasetNotFoundError(
            f"the folder {folder} cannot be read",
            received=error.strerror or str(error),
            remedy="give yourself read permission, or name another folder with --data",
        ) from error


def _not_found(folder: Path) -> DatasetNotFoundError:
    """Return the error that says what is there instead of BreaKHis."""
    expected = "a folder that holds BreaKHis_v1 (or BreaKHis_v1 itself)"
    remedy = "name the folder with --data or BREAKHIS_ROOT"
    if not folder.exists():
        return DatasetNotFoundError(
            f"no such folder: {folder}",
            expected=expected,
            received="a path to nothing",
            remedy=remedy,
        )
    if not folder.is_dir():
        return DatasetNotFoundError(
            f"{folder} is a file, not a folder",
            expected=expected,
            received=f"a file of {folder.stat().st_size:,} bytes",
            remedy="unpack it first and name the folder, if it is the archive",
        )
    names = sorted(entry.name for entry in folder.iterdir() if not is_dropping(entry.name))
    if not names:
        return DatasetNotFoundError(
            f"the folder {folder} is empty", expected=expected, received="nothing", remedy=remedy
        )
    return _not_in_folder(folder, names, expected, remedy)


def _not_in_folder(
    folder: Path, names: list[str], expected: str, remedy: str
) -> DatasetNotFoundError:
    """Return the error for a folder with something else in it."""
    archives = [name for name in names if name.endswith((".tar.gz", ".tgz", ".zip"))]
    if archives:
        remedy = f"unpack {archives[0]} here first"
    elif "BreaKHis_v1" in names or folder.name == "BreaKHis_v1":
        expected = f"BreaKHis_v1/{_TREE}/benign/SOB and …/malignant/SOB"
        remedy = "unpack the archive again: the last time was not finished"
    shown = ", ".join(names[:_FIRST_SHOWN])
    return DatasetNotFoundError(
        f"no BreaKHis in the folder {folder}",
        expected=expected,
        received=f"{shown} ({len(names)} in all)",
        remedy=remedy,
    )
