"""Spanhol's five folds, read from the files they are published in.

Two forms are known, both with one line per image and fold:

* ``dsfold1.txt`` … ``dsfold5.txt`` of ``mkfold.tar.gz`` on the BreaKHis site, no header, CRLF:
  ``SOB_B_A-14-22549AB-40-001.png|40|1|train`` (image, magnification, fold, side);
* ``Folds.csv`` of the Kaggle copy, with the columns ``fold``, ``mag``, ``grp``, ``filename`` (a
  path, of which the last part is the image).

The published files name all 7,909 images once in each fold.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from breakhis_search.data.taxonomy import parse_image_name
from breakhis_search.errors import SplitError

Side = Literal["train", "test"]

N_FOLDS = 5
TEXT_NAMES: tuple[str, ...] = tuple(f"dsfold{n}.txt" for n in range(1, N_FOLDS + 1))
CSV_NAME = "Folds.csv"
_CSV_COLUMNS = ("filename", "mag", "fold", "grp")  # in the order of the fields of a text line
_SUBFOLDERS = ("", "mkfold")  # the archive of the BreaKHis site unpacks to the second
_FETCH = (
    "put dsfold1.txt … dsfold5.txt (mkfold.tar.gz of the BreaKHis site) or Kaggle's Folds.csv"
    " beside BreaKHis_v1, or name them: --set protocol.folds_file=PATH"
)


@dataclass(frozen=True)
class OfficialFolds:
    """Which side of each official fold every image stands on.

    Attributes:
        source: The files they come from, by name.
        sides: Per fold: image file name → ``train`` or ``test``.
    """

    source: str
    sides: tuple[Mapping[str, Side], ...]


@dataclass(frozen=True)
class _Line:
    """One line of a file: ``where`` is file name and line number."""

    where: str
    image: str
    fold: int
    side: Side


def places_of_folds(folder: Path, root: Path) -> list[Path]:
    """Return where the fold files of a data folder may lie: in it and on the way to its images.

    Args:
        folder: The data folder as it was named.
        root: The dataset root inside it, ``…/histology_slides/breast``.
    """
    top, bottom = folder.resolve(), root.resolve()
    between = [p for p in (bottom, *bottom.parents) if p.is_relative_to(top)]
    return [*reversed(between)] or [top]


def load_official_folds(places: Sequence[Path], *, folds_file: str | None = None) -> OfficialFolds:
    """Return the official folds of the first place that has any.

    Args:
        places: Folders to look in.
        folds_file: Where to look instead: ``Folds.csv``, one of the ``dsfold*.txt`` (the others
            lie beside it) or a folder with either.

    Raises:
        SplitError: A file is missing, or a line cannot be used; with file and line number.
    """
    files = _files_in([Path(folds_file).expanduser()] if folds_file else places)
    lines = _read_csv(files[0]) if files[0].suffix == ".csv" else _read_texts(files)
    source = files[0].name if len(files) == 1 else f"{files[0].name} … {files[-1].name}"
    return OfficialFolds(source, _sides(lines))


def _files_in(places: Sequence[Path]) -> tuple[Path, ...]:
    """The files of the first place that has any; the five text files go before the CSV file."""
    for place in places:
        if place.is_file() and place.name not in TEXT_NAMES:
            return (place,)
        base = place.parent if place.is_file() else place
        for folder in (base / name for name in _SUBFOLDERS):
            texts = tuple(folder / name for name in TEXT_NAMES)
            if any(file.is_file() for file in texts):
                return _complete(texts)
            if (folder / CSV_NAME).is_file():
                return (folder / CSV_NAME,)
    raise SplitError(
        "protocol.kind: official needs the official folds, which are not there",
        expected=f"{TEXT_NAMES[0]} … {TEXT_NAMES[-1]}, or {CSV_NAME}",
        received=f"neither in {', '.join(map(str, places))}",
        remedy=_FETCH,
    )


def _complete(texts: tuple[Path, ...]) -> tuple[Path, ...]:
    missing = [file.name for file in texts if not file.is_file()]
    if missing:
        raise SplitError(
            f"the official folds in {texts[0].parent} are incomplete",
            expected=", ".join(TEXT_NAMES),
            received=f"no {', '.join(missing)}",
            remedy="unpack mkfold.tar.gz again",
        )
    return texts


def _read_texts(files: Iterable[Path]) -> Iterator[_Line]:
    for number, file in enumerate(files, start=1):
        for position, text in enumerate(_text_of(file).splitlines(), start=1):
            if not text.strip():
                continue
            line = _parse(f"{file.name}:{position}", text.split("|"), text)
            if line.fold != number:
                raise _malformed(line.where, f"fold {number} in this file", text)
            yield line


def _read_csv(file: Path) -> Iterator[_Line]:
    rows = csv.DictReader(_text_of(file).splitlines())
    missing = [c for c in _CSV_COLUMNS if c not in (rows.fieldnames or ())]
    if missing:
        header = f"a header with {', '.join(_CSV_COLUMNS)}"
        raise _malformed(f"{file.name}:1", header, ",".join(rows.fieldnames or ()))
    for row in rows:
        fields = [row[c] or "" for c in _CSV_COLUMNS]
        fields[0] = fields[0].replace("\\", "/").rsplit("/", 1)[-1]
        yield _parse(f"{file.name}:{rows.line_num}", fields, ",".join(fields))


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{file} cannot be read ({error})", remedy=_FETCH) from error


def _parse(where: str, fields: list[str], text: str) -> _Line:
    """Return a line whose four fields are right and agree with the image's name."""
    shape = "image|magnification|fold|train or test"
    if len(fields) != len(_CSV_COLUMNS):
        raise _malformed(where, shape, text)
    name, magnification, fold, side = (part.strip() for part in fields)
    image = parse_image_name(name)
    if image is None:
        raise _malformed(where, "the name of a BreaKHis image", text)
    if magnification != str(image.magnification):
        raise _malformed(where, f"magnification {image.magnification}, as in the name", text)
    if fold not in {str(n) for n in range(1, N_FOLDS + 1)} or side not in get_args(Side):
        raise _malformed(where, shape, text)
    return _Line(where, name, int(fold), "train" if side == "train" else "test")


def _sides(lines: Iterable[_Line]) -> tuple[Mapping[str, Side], ...]:
    """Per fold: image → side. An image stands in a fold once."""
    sides: tuple[dict[str, Side], ...] = tuple({} for _ in range(N_FOLDS))
    for line in lines:
        fold = sides[line.fold - 1]
        if line.image in fold:
            raise _malformed(line.where, f"each image once in fold {line.fold}", line.image)
        fold[line.image] = line.side
    empty = [str(n) for n, fold in enumerate(sides, start=1) if not fold]
    if empty:
        raise SplitError(
            f"the official folds are incomplete: no image in fold {', '.join(empty)}",
            expected=f"{N_FOLDS} folds",
            received=f"{N_FOLDS - len(empty)}",
            remedy=_FETCH,
        )
    return sides


def _malformed(where: str, expected: str, received: str) -> SplitError:
    return SplitError(
        f"{where}: this line of the official folds cannot be used",
        expected=expected,
        received=repr(received[:100]),
        remedy="fetch the file again, unchanged",
    )
