"""Trials in outline say what Optuna says of them."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from breakhis_search.study.outlines import outlines_of
from breakhis_search.study.storage import open_storage

KEPT = ("number", "state", "value", "datetime_start", "datetime_complete")


@pytest.fixture
def study(tmp_path) -> optuna.Study:
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    other = optuna.create_study(storage=storage, study_name="other")
    other.tell(other.ask(), 0.1)
    study = optuna.create_study(storage=storage, study_name="this", direction="maximize")
    for number, state in enumerate(("complete", "pruned", "fail", "running", "waiting")):
        if state == "waiting":
            study.enqueue_trial({"rate": 0.1})
            break
        trial = study.ask()
        trial.suggest_float("rate", 0, 1)
        trial.report(0.5, 0)
        trial.set_user_attr("reason", f"number {number}")
        trial.set_user_attr("other", [number])
        if state == "complete":
            study.tell(trial, 0.75)
        elif state != "running":
            study.tell(trial, state=TrialState[{"pruned": "PRUNED", "fail": "FAIL"}[state]])
    return study


def test_an_outline_is_what_optuna_says_without_what_nobody_asked_for(study):
    storage = study._storage._backend
    outlines = outlines_of(storage, study._study_id, attributes=["reason"])
    whole = study.get_trials()
    assert [t.state.name for t in outlines] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
    for outline, trial in zip(outlines, whole, strict=True):
        if trial.state == TrialState.PRUNED:  # Optuna keeps its last epoch as its value
            assert outline.value is None
            trial.value = None
        assert [getattr(outline, k) for k in KEPT] == [getattr(trial, k) for k in KEPT]
        assert outline.user_attrs == {k: v for k, v in trial.user_attrs.items() if k == "reason"}
        assert outline.params == {}


def test_a_storage_that_is_no_database_is_asked_itself():
    study = optuna.create_study()
    study.tell(study.ask(), 0.5)
    [outline] = outlines_of(study._storage, study._study_id, attributes=[])
    assert outline.value == 0.5
