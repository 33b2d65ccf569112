"""``compare``: what MLflow knows of one study or several, judged and put into words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from breakhis_search.comparison.contest import compare_selected, judge_finalists
from breakhis_search.comparison.leaderboard import (
    best_by,
    different_splits,
    finalists_of,
    find_studies,
    only_finalists,
    rank_trials,
    read_scored_images,
    read_trials,
    score_by_magnification,
    search_trials_of,
    shared_names,
)
from breakhis_search.comparison.profile import read_profile
from breakhis_search.comparison.selection import Selection
from breakhis_search.comparison.version_facts import VersionFacts, read_facts
from breakhis_search.config import SelectionConfig
from breakhis_search.evaluation.metrics import Objective
from breakhis_search.evaluation.samples import patients_by_class
from breakhis_search.tracking import keys
from breakhis_search.wording import patients_in_words


@dataclass(frozen=True)
class JudgedStudy:
    """One study, compared within.

    Attributes:
        name: Full study name.
        objective: Its objective.
        finalists: Ranked, with the columns of the leaderboard and of the selection.
        trials: The trials of its search, best first, then those that did not complete.
        best_by: The best search trial of every ``architecture`` and of every ``sampling``.
        by_magnification: The objective of the selected finalist at every magnification.
        selection: The tied set; ``None`` without finalists.
        optimism: The best score of the search for having been chosen, in words.
        hard_patients: Whom every trial of the search gets wrong, in words.
        leak_alarm: Why its scores are too good to be believed, in words; mostly empty.
        is_demo: Whether it is about synthetic images.
        registered: The versions that came of it.
        patients: Patients of every class that its scores of patients rest on; they are the same for
            all its trials. Empty where no trial is complete.
    """

    name: str
    objective: Objective
    finalists: pd.DataFrame
    trials: pd.DataFrame
    best_by: dict[str, pd.DataFrame]
    by_magnification: pd.DataFrame
    selection: Selection | None
    optimism: str
    hard_patients: str
    leak_alarm: str
    is_demo: bool
    registered: tuple[VersionFacts, ...]
    patients: Mapping[str, int] = field(default_factory=dict)

    @property
    def patients_in_words(self) -> str:
        """Who the scores of patients rest on, such as ``16 patients (5 benign, 11 malignant)``."""
        if not self.patients:
            return "patients"
        return patients_in_words(self.patients)

    @property
    def why(self) -> str:
        """Which finalist is selected and why, in words."""
        if self.selection is not None:
            return self.selection.explanation
        if search_trials_of(self.trials).empty:
            return "No trial is complete."
        return (
            "No finalist is trained yet: nothing is selected from single seeds. Run the study again"
            " to go on."
        )


@dataclass(frozen=True)
class Comparison:
    """Studies side by side.

    Attributes:
        studies: Each judged within.
        verdicts: How their selected finalists compare, in words.
        warnings: What makes scores incomparable, in words.
    """

    studies: list[JudgedStudy]
    verdicts: list[str]
    warnings: list[str]


def compare_studies(client: Any, names: Sequence[str]) -> Comparison:
    """Return the leaderboards of studies, judged.

    Args:
        client: An MLflow client.
        names: Study names; without a version, the newest one.

    Raises:
        TrackingError: The store has no such study.
    """
    known = {study["study"]: study for study in find_studies(client, names)}
    trials = {name: read_trials(client, [name]) for name in known}
    studies = [_judge(client, name, known[name], found) for name, found in trials.items()]
    all_trials = pd.concat(trials.values(), ignore_index=True)
    warnings = [
        f"Several studies in this store are called {n}: the newest is shown."
        for n in shared_names(all_trials)
    ]
    if different_splits(all_trials):
        warnings.append("These studies split differently: their scores do not compare.")
    objectives = {s.objective for s in studies}
    selected = [
        (f"{s.name} trial {s.selection.selected}", _selected_run(s)) for s in studies if s.selection
    ]
    verdicts = (
        compare_selected(client, selected, studies[0].objective)
        if len(selected) > 1 and len(objectives) == 1
        else []
    )
    if len(selected) > 2:
        warnings.append(
            "Each pair of studies is tested by itself, with no correction for their number."
        )
    return Comparison(studies, verdicts, warnings)


def profile_studies(client: Any, names: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return where the time of studies went, by full name; see :func:`read_profile`.

    Raises:
        TrackingError: The store has no such study.
    """
    return {
        study["study"]: read_profile(client, study["study"], study["study_uid"])
        for study in find_studies(client, names)
    }


def _judge(client: Any, name: str, study: dict[Any, Any], trials: pd.DataFrame) -> JudgedStudy:
    board = rank_trials(trials, study_uid=study["study_uid"])
    if study["finalists"]:  # a selection was made: this one, not that of all finalists ever
        board = only_finalists(board, json.loads(study["finalists"]))
    rules = SelectionConfig(**json.loads(study["selection_rules"]))
    objective: Objective = study["objective"]
    selection = judge_finalists(client, board, objective, margin=rules.margin, alpha=rules.alpha)
    finalists = finalists_of(board)
    if selection is not None:
        judged = selection.table.drop(columns=["name", "score", "parameters"])
        finalists = finalists.merge(judged, on="trial").sort_values("rank")
    trials = board[board["rank"].isna()].reset_index(drop=True)
    shown = finalists[finalists["selected"]] if selection else search_trials_of(trials)
    by_magnification, scored = pd.DataFrame(), None
    for run in shown["run_id"].head(1):
        scored = read_scored_images(client, run)
        by_magnification = score_by_magnification(client, run, objective, scored)
    return JudgedStudy(
        name=name,
        objective=objective,
        finalists=finalists,
        trials=trials,
        best_by={column: best_by(trials, column) for column in ("architecture", "sampling")},
        by_magnification=by_magnification,
        selection=selection,
        optimism=study["optimism"],
        hard_patients=study["hard_patients"],
        leak_alarm=study["leak_alarm"],
        is_demo=study["demo"],
        registered=_registered(client, study["study_uid"]),
        patients={} if scored is None else patients_by_class(scored),
    )


def _registered(client: Any, study_uid: str) -> tuple[VersionFacts, ...]:
    """The versions that a study registered, oldest first."""
    versions = client.search_model_versions(f"tags.`{keys.STUDY_UID}` = '{study_uid}'")
    return tuple(
        read_facts(client, version, client.get_registered_model(version.name).aliases)
        for version in sorted(versions, key=lambda version: int(version.version))
    )


def _selected_run(study: JudgedStudy) -> str:
    return str(study.finalists.loc[study.finalists["selected"], "run_id"].iloc[0])
