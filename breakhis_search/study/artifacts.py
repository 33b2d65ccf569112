"""The files of a run: pages with figures, their points, predictions, configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from breakhis_search.data.images import ImageDecodeError, read_rgb
from breakhis_search.evaluation.cells import cell_table
from breakhis_search.evaluation.document import Section
from breakhis_search.evaluation.intervals import Intervals
from breakhis_search.evaluation.mistakes_page import build_gallery, build_mistakes_page
from breakhis_search.evaluation.page import build_trial_page, trial_data_files
from breakhis_search.evaluation.predictions import write_parquet
from breakhis_search.tracking import keys

if TYPE_CHECKING:  # both load Keras, which the process that makes the pages of trials does without
    from breakhis_search.study.analysis import Findings
    from breakhis_search.study.context import StudyContext


def write_artifacts(
    folder: Path,
    config: Mapping[str, object],
    table: pd.DataFrame,
    history: pd.DataFrame,
    *,
    title: str,
    facts: Mapping[str, str],
    intervals: Intervals,
    sections: tuple[Section, ...] = (),
) -> None:
    """Write everything that goes with a finished trial or finalist.

    Args:
        folder: The folder of the run's artifacts.
        config: The study, so that it can be run again.
        table: Its pooled predictions.
        history: One row per seed, fold and epoch.
        title: Heading of the page.
        facts: What to know of it, by name.
        intervals: Of its scores.
        sections: Further sections of the page.
    """
    # First what comparisons live on: a picture that cannot be drawn costs no result.
    (folder / keys.ARTIFACT_PREDICTIONS).parent.mkdir(parents=True, exist_ok=True)
    write_parquet(table, folder / keys.ARTIFACT_PREDICTIONS)
    _write(folder / keys.ARTIFACT_CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
    cells = cell_table(table)
    page = build_trial_page(
        table,
        history,
        title=title,
        subtitle_facts=facts,
        intervals=intervals,
        cells=cells,
        extra_sections=sections,
    )
    _write(folder / keys.ARTIFACT_PAGE, page)
    files = trial_data_files(table, history, intervals=intervals, cells=cells)
    for name, frame in files.items():
        _write_frame(folder / "figures" / name, frame)


def write_findings(
    folder: Path,
    context: StudyContext,
    table: pd.DataFrame,
    findings: Findings,
    *,
    title: str,
    facts: Mapping[str, str],
) -> None:
    """The page on the mistakes of a finalist, and the tables of its analysis."""
    paths = context.split.table["path"]
    row_of = dict(zip(paths, range(len(paths)), strict=True))
    shown: dict[str, Any] = {
        "image_of": lambda path: _picture(context, path, row_of[path]),
        "explanations": findings.explanations,
    }
    page = build_mistakes_page(table, title=f"{title}: mistakes", subtitle_facts=facts, **shown)
    _write(folder / keys.ARTIFACT_MISTAKES, page)
    _write(folder / keys.ARTIFACT_GALLERY, build_gallery(table, **shown))
    for name, frame in findings.frames.items():
        _write_frame(folder / name, frame)


def _picture(context: StudyContext, path: str, row: int) -> npt.NDArray[np.uint8]:
    """An image as a pathologist can read it: from its file, or else as small as it was learned."""
    try:
        return read_rgb(context.root / path)
    except (ImageDecodeError, OSError):  # the disk with the images is gone; the page is not
        return np.asarray(context.images[row])


def _write_frame(file: Path, frame: pd.DataFrame) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        frame.to_parquet(file, index=False)
    else:
        frame.to_csv(file, index=False)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
