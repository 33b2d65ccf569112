"""The report of a search with all that can happen in one: pruned, failed, two stages, leakage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from breakhis_search.reporting.search_cost import cost_of
from breakhis_search.reporting.study_report import StudyFacts, report_html, report_markdown

SPACE = {
    "optimizer/learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "sampling/strategy": CategoricalDistribution(["none", "oversample"]),
}


def trial(number: int, **attributes: object) -> optuna.trial.FrozenTrial:
    """A trial whose score grows with its learning rate."""
    rate = 10.0 ** (-5 + number / 3)
    state = attributes.pop("state", TrialState.COMPLETE)
    params = {
        "optimizer/learning_rate": rate,
        "sampling/strategy": ("none", "oversample")[number % 2],
    }
    return optuna.trial.create_trial(
        params=params,
        distributions=SPACE,
        value=0.5 + number / 40 if state == TrialState.COMPLETE else None,
        state=state,
        user_attrs={"stage": "probe", "seconds": 1.0, **attributes},
    )


@pytest.fixture(scope="module")
def facts() -> StudyFacts:
    trials = [trial(n) for n in range(6)]
    trials += [trial(n, stage="tune", seconds=100.0) for n in range(6, 9)]
    trials.append(trial(9, stage="tune", seconds=30.0, state=TrialState.PRUNED))
    trials.append(trial(10, stage="tune", seconds=5.0, state=TrialState.FAIL))
    trials.append(trial(11, stage="probe", seconds=0.0, same_as=3))
    for n, made in enumerate(trials):
        made.number = n
    board = pd.DataFrame(
        [
            {
                "trial": n,
                "stage": t.user_attrs["stage"],
                "state": t.state.name.lower(),
                "score": t.value,
                "reason": "fold 0, epoch 2: below the median" if n == 9 else "",
                "architecture": ("mobilenet", "densenet121")[n % 2],
                "sampling": t.params["sampling/strategy"],
            }
            for n, t in enumerate(trials)
        ]
    )
    profile = pd.DataFrame(
        [
            {"run": "trial 0", "role": "trial", "features": 40.0, "train": 2.0},
            {"run": "trial 1", "role": "trial", "features": 0.1, "train": 2.0},
            {"run": "finalist 8", "role": "finalist", "features": 0.0, "train": 300.0},
        ]
    )
    return StudyFacts(
        name="binary@v1",
        made=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        objective="auroc",
        is_demo=False,
        is_leaky=False,
        facts={"Task": "binary"},
        trials=trials,
        board=board,
        patients="16 patients (5 benign, 11 malignant)",
        finalists=pd.DataFrame(),
        searched={},
        why_ended="12 of 40 trials done; the search ended because its time is up.",
        why_selected="Nothing is selected.",
        notes=[],
        winner=None,
        histories={},
        cost=cost_of(trials, profile),
        decisions="",
        reproduce=[],
    )


def test_seconds_are_those_of_all_processes_and_of_the_right_stage(facts):
    assert facts.cost.by_role == {"trial": 6 + 300 + 30 + 5, "finalist": 300.0}
    assert facts.cost.pruned_s == 70.0, "against those that fine-tune, not against the heads"
    assert facts.cost.reused == 1
    assert facts.cost.from_cache == 1
    told = " | ".join(facts.cost.in_words())
    assert "pruning saved about 70 s" in told
    assert "0.18 device hours in all (trial 341 s, finalist 300 s)" in told


def test_page_shows_what_mattered_and_who_did_how_well(facts):
    page = report_html(facts)
    for wanted in (
        "What mattered",
        "One hyperparameter at a time",
        "Architectures and sampling strategies side by side",
        "its time is up",
    ):
        assert wanted in page
    assert "too few trials" not in page
    own = page.split("</head>")[1]
    assert own.count('"type":"box"') == 4, "two architectures, two strategies"
    assert "pruned" in own
    assert "Scores of patients rest on 16 patients (5 benign, 11 malignant)." in own
    assert "LEAKY" not in own


def test_text_says_the_same(facts):
    text = report_markdown(facts)
    assert "| densenet121 | probe | 4 | 0.7750 |" in text
    assert "| oversample | tune | 1 | 0.6750 |" in text
    assert "`optimizer/learning_rate` 1.00" in text
    assert "pruning saved about 70 s" in text


def test_leaky_study_says_so_before_anything_else(facts):
    leaky = replace(facts, is_leaky=True)
    warning = "LEAKY: patients are trained on and scored. Do not believe these scores."
    for told, first in ((report_html(leaky), "<h2"), (report_markdown(leaky), "## ")):
        assert 0 < told.index(warning) < told.index(first, told.index("binary@v1: report"))


def test_without_trials_at_hand_nothing_is_said_of_them(facts):
    page = report_html(replace(facts, trials=[], why_ended="Its trials are in another storage."))
    assert "No trial is complete" not in page
    assert "There are too few trials here" in page


def test_report_says_when_it_was_made_and_how_to_make_it_again(facts):
    for told in (report_html(facts), report_markdown(facts)):
        assert "Made 2026-01-02 03:04 UTC" in told
        assert "move of the champion" in told
        assert "python -m breakhis_search report --study binary@v1" in told


def test_page_says_that_marks_at_the_foot_have_no_score(facts):
    page = report_html(facts)
    assert "pruned (no score, at the foot), 1" in page
    assert "fold 0, epoch 2: below the median" in page
    assert "A mark at the foot has no score" in page
    scored = replace(facts, trials=[t for t in facts.trials if t.state == TrialState.COMPLETE])
    assert "at the foot" not in report_html(scored)
