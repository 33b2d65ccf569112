"""Delivery by a process of its own, to a real store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.settings import read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.courier import Courier
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.store import open_store


def make_nothing(_journal: Journal) -> dict[str, float]:
    """Stand in for the report of a trial."""
    return {"made": 1.0}


def make_a_mistake(_journal: Journal) -> dict[str, float]:
    """Fail as a defect would."""
    message = "planted"
    raise ZeroDivisionError(message)


@pytest.fixture
def settings(tmp_path):
    return read_settings({}, home=tmp_path)


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
    for _ in range(100):
        if client.get_run(run_id).info.status == "FINISHED":
            break
        time.sleep(0.1)
    assert client.get_run(run_id).info.status == "FINISHED"


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


def test_a_defect_comes_with_its_traceback(settings) -> None:
    courier = courier_of(settings, make_a_mistake)
    journal = begun(settings)
    journal.log_report()
    courier.deliver(journal)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: planted"):
        courier.flush()
    courier.close()


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
