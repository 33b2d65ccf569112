"""The page of a trial and its figures, made from its journal alone by whoever delivers it.

A trial of a frozen backbone trains in less time than its page takes to draw. So the trial keeps
what the page is made from, and the next one begins. Imports no Keras.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pandas as pd

from breakhis_search.config import StudyConfig
from breakhis_search.evaluation.intervals import Intervals, bootstrap_intervals
from breakhis_search.evaluation.page import own_sections
from breakhis_search.evaluation.predictions import write_parquet
from breakhis_search.evaluation.samples import DRAWN_LEVELS
from breakhis_search.study.artifacts import write_artifacts
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal

_PREDICTIONS, _HISTORY, _ABOUT = "predictions.parquet", "history.parquet", "about.json"


def keep_report(
    journal: Journal,
    config: StudyConfig,
    table: pd.DataFrame,
    history: pd.DataFrame,
    *,
    title: str,
    facts: Mapping[str, str],
    own_metrics: Mapping[str, float],
) -> None:
    """Keep what the report of a trial is made from, and record that it is to be made.

    Args:
        journal: Of the trial.
        config: The study.
        table: Its pooled predictions.
        history: One row per fold and epoch.
        title: Heading of the page.
        facts: What to know of it, by name.
        own_metrics: Metrics of the user's own by flat name; who makes the page has not their code.
    """
    about = {"title": title, "facts": dict(facts), "objective": config.objective}
    about["own_metrics"] = dict(own_metrics)
    with journal.writing():
        journal.report.mkdir(parents=True, exist_ok=True)
        write_parquet(table, journal.report / _PREDICTIONS)
        history.to_parquet(journal.report / _HISTORY, index=False)
        about["config"] = json.loads(study_as_run(config))
        (journal.report / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
    journal.log_report()


def make_report(journal: Journal) -> dict[str, float]:
    """Make the artifacts of a trial; return intervals of its objective and the time it took."""
    start = time.perf_counter()
    about: dict[str, Any] = json.loads((journal.report / _ABOUT).read_text(encoding="utf-8"))
    table = pd.read_parquet(journal.report / _PREDICTIONS)
    intervals = bootstrap_intervals(table)
    write_artifacts(
        journal.artifacts,
        about["config"],
        table,
        pd.read_parquet(journal.report / _HISTORY),
        title=about["title"],
        facts=about["facts"],
        intervals=intervals,
        sections=own_sections(about["config"].get("metrics", ()), about.get("own_metrics", {})),
    )
    seconds = {f"{keys.SECONDS}figures": time.perf_counter() - start}
    return {**headline_intervals(intervals, about["objective"]), **seconds}


def study_as_run(config: StudyConfig) -> str:
    """Return a study as JSON that can be run again as a study file."""
    sections = config.model_dump(mode="json", exclude_none=True)
    if config.training.features is None:  # the one setting whose default is not null
        sections["training"]["features"] = None
    return json.dumps(sections)


def headline_intervals(intervals: Intervals, objective: str) -> dict[str, float]:
    """Return the intervals of the objective as metrics; a file has those of all scores."""
    return {
        f"{keys.METRIC_INTERVAL}/{level}/{objective}/{end}": getattr(interval, end)
        for level in DRAWN_LEVELS
        if (interval := intervals.known.get(f"{level}/{objective}"))
        for end in ("low", "high")
    }
