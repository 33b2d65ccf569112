"""A synthetic BreaKHis: the real tree, names and patient structure, with drawn pictures inside.

It exists so that everything can be tried with no download: it holds no patient's data and says
nothing about medicine. Its pictures carry the trap of the real set on purpose: each patient has a
stain and a texture of its own, so a split by image scores higher than a split by patient.

Slide ids cannot be confused with real ones: the year is ``00`` (the real set knows 14 and 15) and
the number is ``9TNNN`` (real ones end below 30,000), where T is 1 to 8 for the type in taxonomy
order and NNN counts the patients of the type. ``00-95002CD`` is the second slide of the second
patient with ductal carcinoma.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from breakhis_search.data.demo_stain import Image, PatientLook, draw_look
from breakhis_search.data.demo_tissue import draw_tile
from breakhis_search.data.taxonomy import MAGNIFICATIONS, TUMOR_TYPES, TumorType, parse_image_name
from breakhis_search.errors import ConfigError, DataError

DEMO_NOTICE = "synthetic, not patient data: drawn by breakhis_search to try it without BreaKHis"
"""What every place that shows results of the demo must say."""
DEMO_MARKER = "DEMO.json"
"""File at the top of a demo folder that says what it is and how it was made."""
DEMO_YEAR = "00"
"""Year in all slide ids of the demo; no real slide has it."""
GENERATOR_VERSION = 1
"""Raised whenever the same parameters draw other pictures."""

_TREE = "BreaKHis_v1"
_MAX_NUMBERED = 999  # three digits in the grammar of the file names
_MIN_SIZE_PX = 16


@dataclass(frozen=True)
class DemoParameters:
    """Everything that decides what a demo holds."""

    seed: int
    images_per_slide: int
    height_px: int
    width_px: int
    accessions_per_type: int


@dataclass(frozen=True)
class _Tile:
    """One picture to draw: where it goes and the numbers it is drawn from."""

    path: str
    tumor_type: TumorType
    magnification: int
    patient_key: tuple[int, ...]
    image_key: tuple[int, ...]


def make_demo(
    folder: Path,
    *,
    seed: int = 0,
    images_per_slide: int = 3,
    height_px: int = 152,
    width_px: int = 230,
    accessions_per_type: int = 5,
) -> Path:
    """Return a folder that holds a synthetic BreaKHis tree, made now or found complete.

    Equal parameters give byte-identical files. The folder appears whole or not at all, and two
    processes may ask for it at once.

    Args:
        folder: Where the tree goes; ``BreaKHis_v1`` and ``DEMO.json`` appear inside.
        seed: Draws another set of patients, 0 or more.
        images_per_slide: Pictures per slide and magnification, 1 to 999.
        height_px: Height of a picture (real ones have 460).
        width_px: Width of a picture (real ones have 700).
        accessions_per_type: Patients per tumour type, 1 to 999; the second patient of every other
            type has two slides.

    Raises:
        ConfigError: A parameter is out of range.
        DataError: The folder holds something that is not a demo, or cannot be written.
    """
    parameters = DemoParameters(seed, images_per_slide, height_px, width_px, accessions_per_type)
    _check(parameters)
    folder = Path(folder)
    if _is_complete(folder, parameters):
        return folder
    try:
        _refuse_foreign(folder)
        _make(folder, parameters)
    except OSError as error:
        raise DataError(
            f"the demo cannot be written to {folder}",
            received=str(error),
            remedy="give a folder that can be created and renamed there (not a mount point)",
        ) from error
    return folder


def is_demo(folder: Path) -> bool:
    """Return whether a folder is a synthetic demo or lies inside one, by the marker file."""
    folder = Path(folder).resolve()
    markers = (place / DEMO_MARKER for place in (folder, *folder.parents))
    return any(_read_marker(marker).get("notice") == DEMO_NOTICE for marker in markers)


def _check(parameters: DemoParameters) -> None:
    """Raise if a parameter is out of range."""
    lowest = {"seed": 0, "height_px": _MIN_SIZE_PX, "width_px": _MIN_SIZE_PX}
    for name, value in asdict(parameters).items():
        low = lowest.get(name, 1)
        high = _MAX_NUMBERED if name in {"images_per_slide", "accessions_per_type"} else None
        if value < low or value > (high or value):
            raise ConfigError(
                f"the demo cannot be drawn with {name}={value}",
                expected=f"{low} to {high}" if high else f"{low} or more",
                remedy=f"change {name}",
            )


def _marker(parameters: DemoParameters) -> dict[str, object]:
    """Return the content of the marker file."""
    return {
        "notice": DEMO_NOTICE,
        "generator_version": GENERATOR_VERSION,
        **asdict(parameters),
    }


def _read_marker(path: Path) -> dict[str, object]:
    """Return the content of a marker file; empty if there is none or it is no marker."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_complete(folder: Path, parameters: DemoParameters) -> bool:
    """Return whether the folder holds a demo of these parameters with no picture missing."""
    return _read_marker(folder / DEMO_MARKER) == _marker(parameters) and all(
        (folder / tile.path).is_file() for tile in _list_tiles(parameters)
    )


def _refuse_foreign(folder: Path) -> None:
    """Raise if the folder holds anything that make_demo did not put there."""
    if not folder.exists():
        return
    found = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else [folder]
    is_marked = _read_marker(folder / DEMO_MARKER).get("notice") == DEMO_NOTICE
    foreign = [path for path in found if not (is_marked and _is_ours(path))]
    if foreign:
        raise DataError(
            f"the demo cannot be written to {folder}",
            expected="no folder, an empty one, or an earlier demo",
            received=f"a place that holds {min(foreign)}",
            remedy="give another folder",
        )


def _is_ours(path: Path) -> bool:
    """Return whether a file has a name that make_demo gives."""
    return is_drawn(path.name) or path.name == DEMO_MARKER


def is_drawn(name: str) -> bool:
    """Tell whether an image file is named as one of the demo, which BreaKHis has no such slide of.

    >>> is_drawn("SOB_B_A-00-91001-40-001.png"), is_drawn("SOB_B_A-14-22549AB-40-001.png")
    (True, False)
    """
    image = parse_image_name(name)
    return image is not None and image.slide.startswith(f"{DEMO_YEAR}-9")


def _make(folder: Path, parameters: DemoParameters) -> None:
    """Draw the demo in a temporary folder beside its place, then move it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _fill(workshop / "new", parameters)
        _put_in_place(workshop, folder, parameters)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _list_tiles(parameters: DemoParameters) -> Iterator[_Tile]:
    """Yield every picture of the demo in a fixed order."""
    for ordinal, tumor_type in enumerate(TUMOR_TYPES, start=1):
        for accession in range(1, parameters.accessions_per_type + 1):
            number = f"{DEMO_YEAR}-9{ordinal}{accession:03d}"
            for block in _slide_letters(ordinal, accession):
                yield from _list_slide(tumor_type, number + block, parameters)


def _slide_letters(ordinal: int, accession: int) -> tuple[str, ...]:
    """Return the letters of a patient's slides; the second patient of every other type has two."""
    return ("AB", "CD") if accession == 2 and ordinal % 2 else ("",)


def _list_slide(tumor_type: TumorType, slide: str, parameters: DemoParameters) -> Iterator[_Tile]:
    """Yield the pictures of one slide at all magnifications."""
    stem = f"SOB_{tumor_type.label[0].upper()}_{tumor_type.code}"
    parent = f"{_TREE}/histology_slides/breast/{tumor_type.label}/SOB/{tumor_type.name}"
    patient = int(slide[3:8])
    for magnification in MAGNIFICATIONS:
        for sequence in range(1, parameters.images_per_slide + 1):
            name = f"{stem}-{slide}-{magnification}-{sequence:03d}.png"
            yield _Tile(
                path=f"{parent}/{stem}_{slide}/{magnification}X/{name}",
                tumor_type=tumor_type,
                magnification=magnification,
                patient_key=(parameters.seed, patient),
                image_key=(parameters.seed, *name.encode()),
            )


def _fill(folder: Path, parameters: DemoParameters) -> None:
    """Write all pictures, then the marker."""
    tiles = list(_list_tiles(parameters))
    for parent in {(folder / tile.path).parent for tile in tiles}:
        parent.mkdir(parents=True, exist_ok=True)
    keys = {tile.patient_key for tile in tiles}
    looks = {key: draw_look(np.random.default_rng(key)) for key in keys}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # OpenCV releases the lock
        try:
            jobs = [
                pool.submit(_write_tile, folder, tile, looks[tile.patient_key], parameters)
                for tile in tiles
            ]
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, draw no more
    marker = json.dumps(_marker(parameters), indent=2) + "\n"
    (folder / DEMO_MARKER).write_text(marker, encoding="utf-8")


def _write_tile(folder: Path, tile: _Tile, look: PatientLook, parameters: DemoParameters) -> None:
    """Draw one picture and write it as PNG."""
    picture = draw_tile(
        tile.tumor_type.name,
        tile.magnification,
        look,
        (parameters.height_px, parameters.width_px),
        np.random.default_rng(tile.image_key),
    )
    (folder / tile.path).write_bytes(_encode(picture))


def _encode(picture: Image) -> bytes:
    """Return an RGB picture as a PNG file."""
    is_encoded, data = cv2.imencode(".png", picture[..., ::-1])
    if not is_encoded:
        raise DataError("OpenCV could not encode a demo picture as PNG")
    return data.tobytes()


def _put_in_place(workshop: Path, folder: Path, parameters: DemoParameters) -> None:
    """Move the new demo to its place; give way to an equal one that came first."""
    if _is_complete(folder, parameters):
        return  # another process was faster
    if folder.exists():
        folder.rename(workshop / "old")
    try:
        (workshop / "new").rename(folder)
    except OSError:
        if not _is_complete(folder, parameters):  # else another process was faster just now
            raise
