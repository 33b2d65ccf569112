"""Selection waits for finalists that other processes trained and still bring to MLflow."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pandas as pd
import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.tracking import keys
from breakhis_search.workflow import arrival

UIDS = {1: "mine", 4: "theirs"}


@pytest.fixture
def place(monkeypatch):
    """A study with finalists 1 and 4, of which MLflow holds what is in ``there``."""
    study = optuna.create_study(direction="maximize")
    for score in (0.5, 0.7, 0.6, 0.4, 0.8):
        study.add_trial(optuna.trial.create_trial(value=score))
    for number, uid in UIDS.items():
        study.set_user_attr(f"finalist/{number}", {"uid": uid, "state": "complete"})
    there = {"mine"}
    looks: list[int] = []
    said: list[str] = []

    def board(*_: object, **__: object) -> pd.DataFrame:
        looks.append(len(there))
        rows = [
            {"stage": keys.STAGE_FINALISTS, "state": "complete" if uid in there else "running"}
            | {"trial": number, "run_id": f"run of {uid}", "rank": None}
            for number, uid in UIDS.items()
        ]
        rows += [
            {"stage": "probe", "state": "complete", "trial": n, "run_id": f"trial {n}"}
            for n in range(5)
        ]
        return pd.DataFrame(rows)

    trained: list[int] = []

    def run_finalists(study: optuna.Study, *_: object) -> dict[int, str]:
        for number in UIDS:
            known = study.user_attrs[f"finalist/{number}"]
            if known["state"] == "waits":
                trained.append(number)
                study.set_user_attr(f"finalist/{number}", {**known, "state": "complete"})
        return dict(UIDS)

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(arrival, "read_leaderboard", board)
    monkeypatch.setattr(arrival, "run_finalists", run_finalists)
    monkeypatch.setattr(arrival.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(arrival.time, "sleep", lambda s: setattr(clock, "now", clock.now + s))
    context = SimpleNamespace(
        name="x@v1",
        uid="x",
        settings=SimpleNamespace(tracking_uri="sqlite:///x"),
        delivery=SimpleNamespace(run_id=lambda uid: f"run of {uid}"),
    )
    return SimpleNamespace(
        there=there,
        trained=trained,
        said=said,
        clock=clock,
        ask=lambda: arrival.finalists_in_mlflow(study, context, None, said.append),
    )


def when(place, seconds: float, uid: str, monkeypatch) -> None:
    """Let a run arrive after so many seconds."""
    wait = arrival.time.sleep

    def sleep(s: float) -> None:
        wait(s)
        if place.clock.now >= seconds:
            place.there.add(uid)

    monkeypatch.setattr(arrival.time, "sleep", sleep)


def test_a_finalist_on_its_way_is_waited_for(place, monkeypatch):
    when(place, 120.0, "theirs", monkeypatch)
    arrived = place.ask()
    assert arrived.runs == {1: "run of mine", 4: "run of theirs"}
    assert len(arrived.board[arrived.board["stage"] == keys.STAGE_FINALISTS]) == 2
    assert place.said == ["waiting for what other processes bring to MLflow"]
    assert 120.0 <= place.clock.now < 125.0
    assert place.trained == []


def test_a_finalist_that_does_not_come_is_trained_again(place, monkeypatch):
    when(place, 400.0, "theirs", monkeypatch)
    assert set(place.ask().runs) == {1, 4}
    assert place.trained == [4]
    assert (
        "finalist 4 did not come to MLflow from where it was trained: trained again" in place.said
    )


def test_one_that_the_store_never_gets_is_left_out_and_told(place):
    arrived = place.ask()
    assert arrived.runs == {1: "run of mine"}
    assert "run of theirs" not in set(arrived.board["run_id"])
    assert place.said[-1] == "finalist 4 is not in MLflow, and is left out: `status` says why"


def test_without_any_nothing_is_selected(place):
    place.there.clear()
    with pytest.raises(TrackingError, match="MLflow holds none of the finalists"):
        place.ask()
