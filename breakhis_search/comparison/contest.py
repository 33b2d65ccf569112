"""Models judged on the predictions MLflow holds: tied sets, any pair, one study against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from breakhis_search.comparison.difference import (
    DifferenceInterval,
    difference_interval,
    verdict,
)
from breakhis_search.comparison.evidence import read_predictions
from breakhis_search.comparison.leaderboard import finalists_of, search_trials_of
from breakhis_search.comparison.permutation import SwapTest, patient_swap_test
from breakhis_search.comparison.selection import Finalist, Selection, select
from breakhis_search.errors import ComparisonError
from breakhis_search.evaluation.metrics import Objective


def judge_finalists(
    client: Any, leaderboard: pd.DataFrame, objective: Objective, *, margin: float, alpha: float
) -> Selection | None:
    """Return which finalists of a study are tied with the best and which one is selected.

    Args:
        client: An MLflow client.
        leaderboard: From :func:`.leaderboard.read_leaderboard`, of one study.
        objective: What is compared.
        margin: Largest distance from the best score of a finalist that is called tied.
        alpha: Of the permutation tests, Holm-adjusted.

    Returns:
        ``None`` when there is no finalist.
    """
    finalists = [
        Finalist(
            trial=int(row["trial"]),
            name=row["architecture"],
            table=read_predictions(client, row["run_id"]),
            parameters=int(row["parameters"]),
        )
        for row in finalists_of(leaderboard).to_dict("records")
    ]
    return select(finalists, objective, margin=margin, alpha=alpha) if finalists else None


def read_search(client: Any, leaderboard: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the predictions of every complete search trial of a study.

    Args:
        client: An MLflow client.
        leaderboard: From :func:`.leaderboard.read_leaderboard`, of one study.
    """
    runs = search_trials_of(leaderboard)["run_id"]
    return [read_predictions(client, run) for run in runs]


@dataclass(frozen=True)
class Pair:
    """Two models on the same images.

    Attributes:
        names: What they are called.
        test: Of the first against the second.
        interval: Of the first's score minus the second's.
        verdict: Which one is better, if that can be said, in words.
    """

    names: tuple[str, str]
    test: SwapTest
    interval: DifferenceInterval
    verdict: str

    def _repr_html_(self) -> str:
        return f"<b>{escape(self.verdict)}</b>"


def compare_pair(
    client: Any, first: tuple[str, str], second: tuple[str, str], objective: Objective
) -> Pair:
    """Return how two runs compare on their out-of-fold predictions.

    Args:
        client: An MLflow client.
        first: Name and run of the one.
        second: Name and run of the other.
        objective: What is compared.

    Raises:
        RegistryError: A run has no predictions.
        ComparisonError: They are not about the same images.
    """
    a, b = (read_predictions(client, run) for _, run in (first, second))
    return _pair((first[0], second[0]), a, b, objective)


def _pair(names: tuple[str, str], a: pd.DataFrame, b: pd.DataFrame, objective: Objective) -> Pair:
    test, interval = patient_swap_test(a, b, objective), difference_interval(a, b, objective)
    return Pair(names, test, interval, verdict(test, interval, objective, names=names))


def compare_selected(
    client: Any, selected: Sequence[tuple[str, str]], objective: Objective
) -> list[str]:
    """Return in words how the selected finalists of several studies compare, pair by pair.

    Args:
        client: An MLflow client.
        selected: Name and run of each.
        objective: What is compared.
    """
    tables = [(name, read_predictions(client, run)) for name, run in selected]
    sentences = []
    for i, (first, a) in enumerate(tables):
        for second, b in tables[i + 1 :]:
            try:
                sentences.append(_pair((first, second), a, b, objective).verdict)
            except ComparisonError as error:
                sentences.append(f"{first} and {second} do not compare: {error.what}")
    return sentences
