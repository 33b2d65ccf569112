"""From a study's protocol and a catalog to its split, with all that a reader must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from breakhis_search.config import StudyConfig
from breakhis_search.data.catalog import Catalog
from breakhis_search.data.official import check_official_images
from breakhis_search.data.official_files import load_official_folds, places_of_folds
from breakhis_search.data.splits import Protocol, Split, split_patients


def split_catalog(catalog: Catalog, config: StudyConfig, *, folder: Path) -> Split:
    """Return the split of a study on a catalog.

    Args:
        catalog: The usable images.
        config: The study.
        folder: The data folder as it was named; the official folds are looked for from there on.

    Raises:
        SplitError: The protocol is impossible on this data, with the remedy.
    """
    split = split_table(catalog.table, config, places=places_of_folds(folder, catalog.root))
    return replace(split, notes=(*split.notes, *_near_duplicate_notes(catalog)))


def split_table(table: pd.DataFrame, config: StudyConfig, *, places: Sequence[Path]) -> Split:
    """Return the split of a study on a catalog table.

    Args:
        table: One row per usable image.
        config: The study.
        places: Folders that may hold the official folds.

    Raises:
        SplitError: The protocol is impossible on this data, with the remedy.
    """
    official, notes = None, tuple[str, ...]()
    if config.protocol.kind == "official":
        official = load_official_folds(places, folds_file=config.protocol.folds_file)
        notes = check_official_images(official, table, on_missing=config.data.on_bad_image)
    split = split_patients(
        table,
        config.task,
        Protocol(**config.protocol.model_dump()),
        magnification=config.magnification,
        official=official,
    )
    return replace(split, notes=(*split.notes, *notes))


def _near_duplicate_notes(catalog: Catalog) -> tuple[str, ...]:
    pairs = sum(problem.kind == "near_duplicate" for problem in catalog.problems)
    if not pairs:
        return ()
    some = "two patients have" if pairs == 1 else f"{pairs} pairs of patients have"
    return (f"{some} pictures that look alike, which may leak: `data check` names them",)
