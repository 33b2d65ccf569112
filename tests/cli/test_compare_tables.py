"""Which tables ``compare`` shows, and what it says below them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from breakhis_search.cli.compare import _telling, print_finalists, print_trials
from breakhis_search.comparison.leaderboard import COLUMNS
from breakhis_search.workflow.comparison import JudgedStudy


def judged(samplings: list[str], scores: list[float | None]) -> JudgedStudy:
    trials = pd.DataFrame({"sampling": samplings, "score": scores})
    best = trials[trials["score"].notna()].drop_duplicates("sampling")
    nothing = pd.DataFrame()
    return JudgedStudy(
        name="binary@v1",
        objective="auroc",
        finalists=nothing,
        trials=trials,
        best_by={"sampling": best},
        by_magnification=nothing,
        selection=None,
        optimism="",
        hard_patients="",
        leak_alarm="",
        is_demo=False,
        registered=(),
    )


@pytest.mark.parametrize(
    ("samplings", "scores", "shown"),
    [
        (["none", "focal", "none"], [0.9, 0.8, 0.7], True),
        (["none", "focal"], [0.9, 0.8], False),
        (["none", "none"], [0.9, 0.8], False),
        (["none", "focal", "none"], [0.9, 0.8, None], False),
        ([], [], False),
    ],
    ids=["some twice", "each once", "one value", "each once and a failure", "no trial"],
)
def test_best_of_every_value_is_shown_where_it_tells_something(samplings, scores, shown):
    assert [column for column, _ in _telling(judged(samplings, scores))] == ["sampling"] * shown


def with_a_trial(patients: dict[str, int]) -> JudgedStudy:
    """A study of one trial that is its only finalist, too."""
    row = dict.fromkeys(COLUMNS) | {"trial": 3, "stage": "search", "state": "complete"}
    row |= {"score": 0.91, "patient_score": 0.87, "leaky": False, "parameters": 1e6}
    compared = {"difference": 0.0, "p_holm": 1.0, "selected": True, "tied": True}
    study = judged([], [])
    return replace(
        study,
        trials=pd.DataFrame([row]),
        finalists=pd.DataFrame([row | {"rank": 1} | compared]),
        patients=patients,
    )


@pytest.mark.parametrize(
    ("patients", "told"),
    [
        ({"benign": 5, "malignant": 11}, "the same over 16 patients (5 benign, 11 malignant)"),
        ({"phyllodes_tumor": 1, "adenosis": 0}, "over 1 patient (1 phyllodes tumor, 0 adenosis)"),
        ({}, "patient: the same over patients"),
    ],
    ids=["binary", "multiclass", "predictions that are lost"],
)
def test_scores_of_patients_stand_with_the_number_of_patients(capsys, patients, told):
    study = with_a_trial(patients)
    print_trials(study, study.trials, top=5, title="trials")
    assert told in " ".join(capsys.readouterr().out.split())
    print_finalists(study)
    assert told in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("low", "told"),
    [(-0.2, "to the best: with its 95 % interval"), (None, "to the best: too few patients for")],
)
def test_an_interval_is_spoken_of_where_there_is_one(capsys, low, told):
    study = with_a_trial({"benign": 5, "malignant": 11})
    [best] = study.finalists.to_dict("records")
    worse = best | {"trial": 4, "difference": -0.09, "low": low, "high": low and 0.1}
    worse |= {"selected": False}
    print_finalists(replace(study, finalists=pd.DataFrame([best, worse])))
    assert told in " ".join(capsys.readouterr().out.split())
