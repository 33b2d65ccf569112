"""What ``status`` and a stopped ``run`` say of a study whose trials are done but not the rest."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import optuna
import pytest

from breakhis_search.config import StudyConfig
from breakhis_search.study.finalist_marks import FINALIST, LED_TO_END, mark_of_end
from breakhis_search.study.leases import Leases, finalist_of, lead_of
from breakhis_search.study.ranking import NLL
from breakhis_search.study.storage import RUN_UID, STOPPED
from breakhis_search.tracking import keys
from breakhis_search.workflow.outstanding import (
    Outstanding,
    config_from_text,
    what_is_outstanding,
)

STUDY = {
    "name": "x",
    "task": "binary",
    "objective": "auroc",
    "search": {"trials": 4},
    "finalists": {"count": 3, "seeds": 2},
}
CONFIG = StudyConfig.model_validate(STUDY)


@pytest.fixture
def uri(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def trial(number: int, score: float, *, values: float | None = None):
    distributions = {"x": optuna.distributions.FloatDistribution(0, 99)}
    made = optuna.trial.create_trial(
        value=score,
        params={"x": float(number) if values is None else values},
        distributions=distributions,
        user_attrs={NLL: 0.5},
    )
    made.number = number
    return made


TRIALS = [trial(0, 0.6), trial(1, 0.9), trial(2, 0.8), trial(3, 0.7)]


def noted(**states: str) -> dict[str, Any]:
    """Attributes of a study whose finalists are so far."""
    finalists = {
        f"{FINALIST}{name.removeprefix('t')}": {"uid": name, "state": state, "seeds": 2}
        for name, state in states.items()
    }
    return {RUN_UID: "study", **finalists}


def outstanding(uri: str, attributes: dict[str, Any], trials=TRIALS) -> Outstanding | None:
    with closing(Leases(uri)) as leases:
        return what_is_outstanding(CONFIG, trials, attributes, leases, lambda t: t.params)


def words(*arguments, **options) -> str:
    found = outstanding(*arguments, **options)
    assert found is not None
    return found.in_words()


def test_while_trials_are_missing_the_finalists_come_after_them(uri):
    told = words(uri, noted(), TRIALS[:2])
    assert told == "2 of 4 trials done, its finalists come after them"


def test_a_search_that_ended_before_its_budget_has_its_finalists_left(uri):
    told = words(uri, {**noted(), STOPPED: "its time is up"}, TRIALS[:2])
    assert told == "finalists 0 of 2 trained, not registered yet"


def test_finalists_are_counted_by_what_became_of_them(uri):
    told = words(uri, noted(t1="complete", t2="waits", t3="failed", t0="complete"))
    assert told == (
        "finalists 1 of 3 trained, 1 failed, 1 interrupted (FAILED in MLflow until it goes on),"
        " not registered yet"
    )


def test_finalists_of_other_seeds_and_of_the_same_values_do_not_count(uri):
    attributes = noted(t1="complete", t2="complete")
    attributes[f"{FINALIST}2"]["seeds"] = 1
    told = words(
        uri, attributes, [*TRIALS[1:3], trial(4, 0.7, values=1.0), trial(5, 0.1, values=2.0)]
    )
    assert told == "finalists 1 of 2 trained, not registered yet"


def test_what_a_living_process_is_at_is_not_interrupted(uri):
    with closing(Leases(uri)) as others:
        assert others.take(finalist_of("study", 1))
        assert others.take(lead_of("study"))
        found = outstanding(uri, noted(t1="begun", t2="begun"))
    assert found is not None
    assert (found.in_progress, found.interrupted, found.is_led) == (1, 1, True)


def test_a_study_is_done_once_it_was_led_to_its_end_with_these_finalists(uri):
    attributes = noted(t1="complete", t2="failed", t3="complete")
    told = "finalists 2 of 3 trained, 1 failed, not registered yet"
    assert words(uri, attributes) == told
    done = {LED_TO_END: mark_of_end([3, 1, 2], 2)}
    assert outstanding(uri, {**attributes, **done}) is None
    before = {LED_TO_END: mark_of_end([0, 1, 2], 2)}  # a better trial came since
    assert words(uri, {**attributes, **before}) == told


def test_a_protocol_that_leaks_ends_with_a_selection(uri):
    config = StudyConfig.model_validate(STUDY | {"protocol": {"kind": "image"}})
    with closing(Leases(uri)) as leases:
        found = what_is_outstanding(config, TRIALS, noted(), leases, lambda t: t.params)
    assert found is not None
    assert found.in_words() == "finalists 0 of 3 trained, not selected yet"


def test_a_search_without_a_complete_trial_has_no_finalists(uri):
    told = words(uri, {**noted(), STOPPED: "its time is up"}, [])
    assert told == "its search is over and no trial is complete"


@pytest.mark.parametrize("text", ["", "name: [", "name: x", "unknown: 1", "name: 2026-99-99"])
def test_a_study_that_this_release_cannot_read_is_unknown(text):
    assert config_from_text(text) is None


def test_a_search_stopped_at_a_finalist_does_not_look_finished(home, monkeypatch, capsys):
    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.study.finalists._Repetitions.findings", stop)
        assert home.search("binary", 1) == 130
    told = capsys.readouterr().out
    assert "Stopped: 1 of 1 trials done, but not all that follows them (`status` tells" in told
    client = home.client
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary-demo'")
    condition = f"tags.`{keys.ROLE}` = 'finalist'"
    [run] = client.search_runs([experiment.experiment_id], condition)
    assert (run.info.status, run.data.tags[keys.STATE]) == ("FAILED", "interrupted")

    assert home.run("status") == 0
    told = capsys.readouterr().out
    assert (
        "binary-demo@v1: finalists 0 of 1 trained, 1 interrupted (FAILED in MLflow until it goes"
        " on), not registered yet; to do: type the command that began it again"
    ) in told
    assert "run --study binary …" in told
    assert home.run("status", "--json") == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    assert study["outstanding"]["interrupted"] == 1

    for file in home.settings.state_dir.rglob("study.yaml"):
        file.write_bytes(b"\xff")
    assert home.run("status") == 0
    told = capsys.readouterr().out
    assert "binary-demo@v1: not at its end; how far it is cannot be told without its" in told


def test_a_study_at_its_end_has_nothing_outstanding(searched, capsys):
    assert searched.run("status") == 0
    assert "finalists" not in capsys.readouterr().out
    assert searched.run("status", "--json") == 0
    [study] = json.loads(capsys.readouterr().out)["studies"]
    assert study["outstanding"] is None
