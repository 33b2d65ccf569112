"""Delivery by a process of its own, to a real store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import requests

from breakhis_search.errors import TrackingError
from breakhis_search.settings import read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.courier import Courier, Flushed, _Round
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.journals import journals_set_aside
from breakhis_search.tracking.store import open_store
from tests.patience import wait_until


def make_nothing(_journal: Journal) -> dict[str, float]:
    """Stand in for the report of a trial."""
    return {"made": 1.0}


def make_a_mistake(_journal: Journal) -> dict[str, float]:
    """Fail as a defect would."""
    message = "planted"
    raise ZeroDivisionError(message)


def wait_for_leave(journal: Journal) -> dict[str, float]:
    """Take as long as the test likes."""
    while not (journal.folder / "leave").exists():
        time.sleep(0.05)
    return {}


@pytest.fixture
def settings(tmp_path, with_stores):
    return read_settings({}, home=with_stores(tmp_path))


def begun(settings, uid: str = "a") -> Journal:
    journal = Journal(settings.journal_dir / uid)
    journal.begin(name=uid, tags={keys.ROLE: "trial"}, parent_uid=None, experiment="breakhis-x")
    return journal


def courier_of(settings, make=make_nothing) -> Courier:
    return Courier(settings, make, delivery=Delivery(open_store(settings), settings))


def test_what_is_asked_for_is_there_after_a_flush_though_the_writer_goes_on(settings) -> None:
    courier = courier_of(settings)
    journal = begun(settings)
    for epoch in range(3):
        journal.log_metrics({"loss": 1.0 / (epoch + 1)}, step=epoch)
        courier.deliver(journal)
    journal.log_report()
    courier.deliver(journal)
    courier.flush()
    assert not journal.has_undelivered
    client = open_store(settings)
    run_id = courier.run_id("a")
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [0, 1, 2]
    assert client.get_run(run_id).data.metrics["made"] == 1.0
    journal.finish("FINISHED")
    courier.deliver(journal)
    courier.close()
    wait_until(lambda: client.get_run(run_id).info.status == "FINISHED")


def test_a_store_that_refuses_is_told_while_the_search_goes_on(settings) -> None:
    gone = replace(settings, tracking_uri="http://127.0.0.1:9")
    told: list[str] = []
    courier = Courier(gone, make_nothing, patience_s=0.0, say=told.append)
    journal = begun(settings)
    assert courier.deliver(journal)
    for _ in range(2):
        with pytest.raises(TrackingError, match="127.0.0.1:9"):
            courier.flush()
    assert courier.deliver(journal), "who only brings something is not stopped"
    courier.close()
    assert len(told) == 1
    assert "the search goes on, and its records are delivered later" in told[0]
    assert journal.has_undelivered


def test_what_a_store_refused_is_delivered_once_it_answers(settings, tmp_path) -> None:
    folder = tmp_path / "store"
    later = replace(settings, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    folder.write_text("a file where the folder should be")
    told: list[str] = []
    courier = Courier(later, make_nothing, say=told.append)
    journal = begun(settings)
    journal.log_metrics({"loss": 0.5}, step=0)
    courier.deliver(journal)
    assert courier.connection.poll(30)
    courier.deliver(journal)
    assert len(told) == 1
    folder.unlink()
    courier.flush()
    courier.close()
    assert told[1:] == ["MLflow answers again: what waited is delivered"]
    assert not journal.has_undelivered
    client = open_store(later)
    run_id = Delivery(client, later).run_id("a")
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [0]


def test_a_flush_that_nothing_waits_for_outlives_a_store_that_is_away(settings, tmp_path) -> None:
    folder = tmp_path / "store"
    folder.write_text("a file where the folder should be")
    later = replace(settings, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    courier = Courier(later, make_nothing)
    courier.ask_for_all()  # as after the one before it was killed with all delivered
    assert courier.connection.poll(30), "it is told that the store is away"
    folder.unlink()
    courier.flush()
    courier.close()


def test_a_page_that_cannot_be_drawn_costs_no_record(settings) -> None:
    told: list[str] = []
    delivery = Delivery(open_store(settings), settings)
    courier = Courier(settings, make_a_mistake, delivery=delivery, say=told.append)
    journal = begun(settings)
    journal.log_report()
    journal.log_metrics({"after": 1.0})
    courier.deliver(journal)
    courier.flush()
    run_id = courier.run_id("a")
    courier.close()
    [complaint] = told
    assert "could not be drawn (ZeroDivisionError: planted)" in complaint
    client = open_store(settings)
    run = client.get_run(run_id)
    assert run.data.metrics["after"] == 1.0
    assert run.data.tags[keys.PAGE_FAILED] == "ZeroDivisionError: planted"
    assert [a.path for a in client.list_artifacts(run_id, "figures")] == ["figures/not_drawn.txt"]


def test_one_run_that_mlflow_refuses_keeps_no_other_waiting(settings) -> None:
    told: list[str] = []
    client = open_store(settings)
    courier = Courier(settings, make_nothing, delivery=Delivery(client, settings), say=told.append)
    deleted, other = begun(settings, "deleted"), begun(settings, "other")
    courier.deliver(deleted)
    client.delete_run(courier.run_id("deleted"))
    for journal in (deleted, other):
        journal.log_metrics({"loss": 1.0}, step=0)
        courier.deliver(journal)
    courier.flush()
    assert not other.has_undelivered
    run_id = courier.run_id("other")
    courier.close()
    assert client.get_run(run_id).data.metrics["loss"] == 1.0
    assert "the records of run deleted are set aside" in told[0]
    assert set(journals_set_aside(settings.journal_dir)) == {"deleted"}


def refuse_its_files(client: Any, run_id: str, status: int) -> None:
    """Let uploads to a run be answered with that status, as by a proxy in front of the server."""
    upload = client.log_artifacts

    def log_artifacts(to: str, *rest: Any) -> None:
        if to == run_id:
            response = requests.Response()
            response.status_code = status
            response.url = "http://proxy/api/2.0/mlflow-artifacts/artifacts"
            response.raise_for_status()
        upload(to, *rest)

    client.log_artifacts = log_artifacts


@pytest.mark.parametrize(
    ("status", "is_of_the_run"),
    [(413, True), (400, True), (403, False), (407, False), (429, False), (502, False)],
)
def test_a_file_that_a_proxy_does_not_let_through_is_a_fault_of_its_run(
    settings, status, is_of_the_run
) -> None:
    client = open_store(settings)
    delivery = Delivery(client, settings)
    journal = begun(settings, "large")
    delivery.deliver(journal)
    refuse_its_files(client, delivery.run_id("large"), status)
    (journal.artifacts / "model").write_text("a large one")
    journal.log_artifacts()
    if is_of_the_run:
        delivery.deliver(journal)
        assert f"{status} Client Error" in str(journal.set_aside_because)
    else:
        with pytest.raises(TrackingError, match=str(status)):
            delivery.deliver(journal)
        assert journal.set_aside_because is None


def test_a_run_that_is_refused_for_ever_lets_the_others_by(settings, monkeypatch) -> None:
    """Whatever the server says: who came after it is delivered by the next attempt."""
    monkeypatch.setattr("breakhis_search.tracking.courier.FIRST_PAUSE_S", 0.0)
    asked: list[str] = []

    class Refusing:
        def deliver(self, journal: Journal) -> bool:
            asked.append(journal.uid)
            if journal.uid == "refused":
                raise TrackingError("HTTP 500")
            return True

    for uid in ("refused", "other"):
        journal = begun(settings, uid)
        Delivery(open_store(settings), settings).deliver(journal)
        journal.log_metrics({"loss": 1.0}, step=0)
    one, _ = multiprocessing.Pipe()
    at_work = _Round(one, settings, make_nothing, 300.0)
    at_work._due = {"refused": None, "other": None}
    for _ in range(2):
        at_work._delivery = Refusing()
        with pytest.raises(TrackingError, match="500"):
            at_work._bring()
    assert asked == ["refused", "other", "refused"]
    assert list(at_work._due) == ["refused"]


def test_who_asks_never_waits_for_a_delivery(settings) -> None:
    courier = courier_of(settings, wait_for_leave)
    journal = begun(settings)
    journal.log_report()
    courier.deliver(journal)

    def ask() -> None:
        for _ in range(5000):  # a pipe takes some hundreds
            courier.ask_for("a")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(60)
    waited = asking.is_alive()
    (journal.folder / "leave").touch()
    courier.flush()
    courier.close()
    assert not waited


def test_what_another_process_is_delivering_is_waited_for(settings) -> None:
    courier = courier_of(settings)
    journal = begun(settings)
    with journal.delivering() as is_ours:
        assert is_ours
        courier.deliver(journal)
        courier.ask_for_all()
        assert not courier.connection.poll(3), "it is not flushed"
    assert isinstance(courier.connection.recv(), Flushed)
    courier.close()
    assert not journal.has_undelivered


def test_a_courier_that_was_killed_is_told_and_nothing_is_lost(settings) -> None:
    courier = courier_of(settings)
    journal = begun(settings)
    os.kill(courier._process.pid, signal.SIGKILL)
    courier._process.join()
    with pytest.raises(TrackingError, match="has ended"):
        courier.flush()
    courier.close()
    assert Delivery(open_store(settings), settings).deliver(journal)
    assert not journal.has_undelivered


def test_courier_loads_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys, breakhis_search.tracking.courier, breakhis_search.study.report;"
        "print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
