"""Which data a command works on: the one given, one at a default place, or the labelled demo."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from breakhis_search.data.catalog import Catalog, read_catalog
from breakhis_search.data.checks import Problem
from breakhis_search.data.demo import is_demo, make_demo
from breakhis_search.data.download import SOURCE_URL, download_archive
from breakhis_search.data.location import find_dataset_root
from breakhis_search.data.unpacking import extract_archive
from breakhis_search.errors import DataError, DatasetNotFoundError
from breakhis_search.settings import Settings


@dataclass(frozen=True)
class DataChoice:
    """The data in use.

    Attributes:
        folder: Folder to hand to the catalog.
        is_demo: Whether it is synthetic; studies and models of it keep names of their own.
        source: How it was found, in words.
    """

    folder: Path
    is_demo: bool
    source: str


def choose_data(
    given: Path | None, settings: Settings, *, study_root: str | None = None
) -> DataChoice:
    """Return the data to work on: ``given``, BREAKHIS_ROOT, the study's root, ``./data``, the demo.

    Only where all are absent the demo is made and used. A place that was named and is wrong is an
    error, never a fallback.

    Raises:
        DatasetNotFoundError: A place that was named holds no BreaKHis.
    """
    named = [
        (given, "--data"),
        (settings.data_root, "BREAKHIS_ROOT"),
        (Path(study_root).expanduser() if study_root else None, "data.root of the study"),
    ]
    for folder, source in named:
        if folder is not None:
            find_dataset_root(folder)
            return DataChoice(folder.resolve(), is_demo(folder), source)
    default = settings.home / "data"
    try:
        find_dataset_root(default)
    except DatasetNotFoundError:
        return DataChoice(make_demo(settings.cache_dir / "demo"), True, "no BreaKHis was given")
    return DataChoice(default, is_demo(default), "./data")


def is_data_at_hand(given: Path | None, settings: Settings) -> bool:
    """Tell whether :func:`choose_data` would find data, without drawing the demo."""
    if given is not None or settings.data_root is not None:
        return True
    try:
        find_dataset_root(settings.home / "data")
    except DatasetNotFoundError:
        return False
    return True


def open_catalog(given: Path | None, settings: Settings) -> tuple[Catalog, DataChoice]:
    """Return the catalog of the data in use, and how that was found."""
    choice = choose_data(given, settings)
    return read_catalog(choice.folder, cache_dir=settings.cache_dir), choice


def problems_worth_telling(catalog: Catalog, choice: DataChoice) -> tuple[Problem, ...]:
    """Return what is wrong with the data or worth knowing; a demo need not be the full set."""
    return tuple(p for p in catalog.problems if not (choice.is_demo and p.kind == "partial_set"))


def describe_accessions(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per accession: label, types, slides and number of images."""
    return table.groupby("accession").agg(
        label=("label", "first"),
        types=("type", lambda types: " ".join(sorted(set(types)))),
        slides=("slide", lambda slides: " ".join(sorted(set(slides)))),
        images=("path", "size"),
    )


def write_csv(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV.

    Raises:
        DataError: The file cannot be written.
    """
    try:
        table.to_csv(file, index=False)
    except OSError as error:
        raise DataError(
            f"{file} cannot be written ({error.strerror})", remedy="choose another --csv"
        ) from error


def download_dataset(
    folder: Path,
    settings: Settings,
    *,
    url: str | None = None,
    sha256: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Catalog:
    """Fetch, verify, unpack and check BreaKHis; an interrupted download goes on where it ended.

    No official checksum of the archive is known, so the counts of the full set are the check
    unless ``sha256`` is given.

    Raises:
        DownloadError: It cannot be fetched, verified or unpacked.
    """
    address = url or SOURCE_URL
    say(f"fetching {address}")
    last = [-1]

    def progress(done: int, total: int | None) -> None:
        percent = 100 * done // total if total else 0
        if percent // 5 != last[0]:
            last[0] = percent // 5
            say(f"  {percent} % ({done / 1e6:,.0f} MB)")

    archive = download_archive(
        address, folder / "BreaKHis_v1.tar.gz", sha256=sha256, progress=progress
    )
    if sha256 is None:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        say(
            f"its sha256 is {digest}; none is published to check it against: keep it, and give it"
            " with --sha256 the next time"
        )
    say("unpacking")
    extract_archive(archive, folder)
    return read_catalog(folder, cache_dir=settings.cache_dir)
