"""Journal and delivery on a real SQLite MLflow."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import TAKEN_OVER, Journal
from breakhis_search.tracking.journals import (
    end_left_behind,
    journals_set_aside,
    open_journals,
    take_up_set_aside,
)
from breakhis_search.tracking.store import open_store


@pytest.fixture(scope="module")
def settings(tmp_path_factory, with_stores) -> Settings:
    return read_settings({}, home=with_stores(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def client(settings):
    return open_store(settings)


def journal_of(settings: Settings, uid: str) -> Journal:
    return Journal(settings.journal_dir / uid)


def begin(journal: Journal, parent: str | None = None, *, once: bool = False) -> None:
    journal.begin(
        name=f"run {journal.uid}",
        tags={"a": "b"},
        parent_uid=parent,
        experiment="breakhis-test",
        once=once,
    )


def runs_of(client, uid: str) -> list:
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    return client.search_runs([experiment], f"tags.`{keys.TRIAL_UID}` = '{uid}'")


def test_a_whole_run_arrives(settings, client):
    parent, child = journal_of(settings, "parent1"), journal_of(settings, "child1")
    begin(parent)
    begin(child, parent="parent1")
    child.log_params({"optimizer/learning_rate": 0.01})
    child.log_metrics({"loss": 2.0}, step=0)
    child.log_metrics({"loss": 1.0}, step=1)
    (child.artifacts / "figures").mkdir()
    (child.artifacts / "figures" / "x.txt").write_text("hello")
    child.log_artifacts()
    child.finish("FINISHED")
    delivery = Delivery(client, settings)
    delivery.deliver(parent)
    delivery.deliver(child)
    [run] = runs_of(client, "child1")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"optimizer/learning_rate": "0.01"}
    assert run.data.tags[keys.MLFLOW_PARENT] == delivery.run_id("parent1")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 2.0), (1, 1.0)]
    assert [f.path for f in client.list_artifacts(run.info.run_id, "figures")] == ["figures/x.txt"]


def test_delivering_everything_twice_changes_nothing(settings, client):
    journal = journal_of(settings, "twice")
    begin(journal)
    journal.log_params({"p": 1})
    journal.log_metrics({"m": 0.5}, step=3)
    journal.finish("KILLED")
    Delivery(client, settings).deliver(journal)
    (journal.folder / "cursor").unlink()  # as after a crash before the cursor was written
    Delivery(client, settings).deliver(journal)
    [run] = runs_of(client, "twice")
    assert run.info.status == "KILLED"
    assert len(client.get_metric_history(run.info.run_id, "m")) == 1


def test_a_run_that_goes_on_has_no_step_twice(settings, client):
    made: list[str] = []

    def make_report(journal):
        made.append(journal.uid)
        return {"interval/low": 0.1 * len(made)}

    delivery = Delivery(client, settings, make_report)
    begun = {"name": "a", "tags": {}, "parent_uid": None, "experiment": "breakhis-test"}
    for part in range(2):
        journal = Journal(settings.journal_dir / "goes-on")
        journal.begin(**begun, once=True)
        for epoch in range(part + 1):
            journal.log_metrics({"loss": 1.0 + part}, step=epoch)
        journal.log_report()
        delivery.deliver(journal)
        journal.release()
    run_id = delivery.run_id("goes-on")
    history = client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 2.0)]
    assert len(client.get_metric_history(run_id, "interval/low")) == 1
    assert made == ["goes-on"]


def test_a_run_that_another_machine_began_has_no_step_twice(settings, client):
    begun = {"name": "a", "tags": {}, "parent_uid": None, "experiment": "breakhis-test"}
    for machine, epochs in (("lost", 2), ("next", 3)):
        delivery = Delivery(client, settings)
        journal = Journal(settings.journal_dir.parent / machine / "moved")
        journal.begin(**begun, once=True)
        for epoch in range(epochs):
            journal.log_metrics({"loss": 1.0}, step=epoch)
            delivery.deliver(journal)
        journal.release()
    [run] = runs_of(client, "moved")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in history] == [0, 1, 2]


def test_a_fold_that_begins_anew_in_the_same_process_has_no_step_twice(settings, client):
    journal = journal_of(settings, "anew")
    begun = {"name": "a", "tags": {}, "parent_uid": None, "experiment": "breakhis-test"}
    journal.begin(**begun, once=True)
    for step in (0, 1, 0, 1, 2):  # want of memory after epoch 1: it began again in smaller parts
        journal.log_metrics({"loss": 1.0}, step=step)
    journal.finish("FINISHED")
    Delivery(client, settings).deliver(journal)
    [run] = runs_of(client, "anew")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in history] == [0, 1, 2]


def test_a_machine_that_comes_back_does_not_end_what_another_went_on_with(
    settings, client, monkeypatch
):
    monkeypatch.setattr(Settings, "shares_runs", True)
    begun = {"name": "a", "tags": {}, "parent_uid": None, "experiment": "breakhis-test"}
    lost = Journal(settings.journal_dir.parent / "lost-machine" / "fenced")
    lost.begin(**begun, once=True, turn=1)
    lost.log_metrics({"loss": 1.0}, step=0)
    Delivery(client, settings).deliver(lost)
    lost.log_metrics({"loss": 0.9}, step=1)  # never brought over
    lost.release()
    next_one = Journal(settings.journal_dir.parent / "next-machine" / "fenced")
    next_one.begin(**begun, once=True, turn=2)
    next_one.log_metrics({"loss": 0.8}, step=1)
    next_one.set_tags({keys.STATE: "complete"})
    next_one.finish("FINISHED")
    Delivery(client, settings).deliver(next_one)

    again = Journal(lost.folder)
    assert end_left_behind(lost.folder.parent)[0].uid == "fenced"
    assert Delivery(client, settings).deliver(again)
    [run] = runs_of(client, "fenced")
    assert (run.info.status, run.data.tags[keys.STATE]) == ("FINISHED", "complete")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 1.0), (1, 0.8)]
    assert again.set_aside_because == TAKEN_OVER
    assert again.is_finished()
    assert not again.has_undelivered


def steps_of(client, uid: str) -> list[int]:
    [run] = runs_of(client, uid)
    return [point.step for point in client.get_metric_history(run.info.run_id, "loss")]


BEGINNING = {"name": "a", "tags": {}, "parent_uid": None, "experiment": "breakhis-test"}


def test_a_courier_that_is_new_behind_the_beginning_repeats_nothing_of_another_machine(
    settings, client, tmp_path, monkeypatch
):
    monkeypatch.setattr(Settings, "shares_runs", True)
    theirs = Journal(tmp_path / "theirs" / "moved")
    theirs.begin(**BEGINNING, once=True, turn=1)
    for epoch in range(3):
        theirs.log_metrics({"loss": 1.0}, step=epoch)
    Delivery(client, settings).deliver(theirs)
    time.sleep(0.01)  # or the same point would be told twice, which is as once
    ours = Journal(tmp_path / "ours" / "moved")
    ours.begin(**BEGINNING, once=True, turn=2)
    Delivery(client, settings).deliver(ours)
    for epoch in range(4):  # what the checkpoint has seen, and one more
        ours.log_metrics({"loss": 1.0}, step=epoch)
    Delivery(client, settings).deliver(ours)
    assert steps_of(client, "moved") == [0, 1, 2, 3]


def test_a_machine_that_takes_its_run_back_leaves_out_what_it_had_not_delivered(
    settings, client, tmp_path, monkeypatch
):
    monkeypatch.setattr(Settings, "shares_runs", True)
    ours = Journal(tmp_path / "ours" / "back")
    ours.begin(**BEGINNING, once=True, turn=1)
    ours.log_metrics({"loss": 1.0}, step=0)
    Delivery(client, settings).deliver(ours)
    ours.log_metrics({"loss": 0.9}, step=1)
    ours.release()
    theirs = Journal(tmp_path / "theirs" / "back")
    theirs.begin(**BEGINNING, once=True, turn=2)
    for epoch in range(3):
        theirs.log_metrics({"loss": 0.8}, step=epoch)
    Delivery(client, settings).deliver(theirs)
    again = Journal(tmp_path / "ours" / "back")
    again.begin(**BEGINNING, once=True, turn=3)
    for epoch in range(4):
        again.log_metrics({"loss": 0.7}, step=epoch)
    Delivery(client, settings).deliver(again)
    assert steps_of(client, "back") == [0, 1, 2, 3]


def test_a_machine_that_takes_a_run_back_repeats_nothing_of_the_other(settings, client):
    begun = {"name": "a", "tags": {}, "parent_uid": None, "experiment": "breakhis-test"}
    first = Journal(settings.journal_dir.parent / "first-machine" / "back-again")
    second = Journal(settings.journal_dir.parent / "second-machine" / "back-again")
    for turn, (journal, steps) in enumerate([(first, [0]), (second, [1]), (first, [1, 2])], 1):
        journal.begin(**begun, once=True, turn=turn)
        for step in steps:
            journal.log_metrics({"loss": 1.0}, step=step)
        Delivery(client, settings).deliver(journal)
        journal.release()
    [run] = runs_of(client, "back-again")
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in history] == [0, 1, 2]


def test_a_cursor_that_a_power_cut_emptied_delivers_everything_again_to_the_same(settings, client):
    journal = journal_of(settings, "emptied")
    begin(journal)
    journal.log_metrics({"m": 0.5})
    journal.log_report()
    journal.finish("FINISHED")
    complaints: list[str] = []
    delivery = Delivery(client, settings, lambda _: {"made": 1.0}, complain=complaints.append)
    delivery.deliver(journal)
    assert not journal.report.exists(), "it is in MLflow now"
    (journal.folder / "cursor").write_text("")
    assert delivery.deliver(journal)
    assert complaints == []
    [run] = runs_of(client, "emptied")
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "made")) == 1


def test_a_damaged_journal_keeps_no_other_waiting(settings, client):
    damaged, other = journal_of(settings, "a-damaged"), journal_of(settings, "b-other")
    for journal in (damaged, other):
        begin(journal)
        journal.finish("FINISHED")
    with (damaged.folder / "records.jsonl").open("a") as file:
        file.write("no json\n")
    complaints: list[str] = []
    Delivery(client, settings, complain=complaints.append).deliver_all(settings.journal_dir)
    assert not other.has_undelivered
    assert "a-damaged" in journals_set_aside(settings.journal_dir)
    assert "is damaged at byte" in complaints[0]
    take_up_set_aside(settings.journal_dir)
    assert damaged.has_undelivered, "it is tried again"
    shutil.rmtree(damaged.folder)


def test_a_report_whose_delivery_was_killed_has_no_metric_twice(settings, client, monkeypatch):
    made: list[float] = []

    def make_report(_journal):
        made.append(len(made) + 1.0)
        return {"seconds/figures": made[-1]}

    journal = journal_of(settings, "report-twice")
    begin(journal)
    journal.log_report()
    with monkeypatch.context() as patch:
        patch.setattr(
            Journal, "mark_delivered", lambda *_: (_ for _ in ()).throw(OSError("killed"))
        )
        with pytest.raises((OSError, TrackingError)):
            Delivery(client, settings, make_report).deliver(journal)
    Delivery(client, settings, make_report).deliver(journal)
    Delivery(client, settings, make_report).deliver(journal)
    [run] = runs_of(client, "report-twice")
    history = client.get_metric_history(run.info.run_id, "seconds/figures")
    assert len(history) == 1


def test_there_is_a_place_for_a_model_whatever_a_killed_process_left(settings):
    journal = journal_of(settings, "half-saved")
    left = journal.models / "model" / "data"
    left.mkdir(parents=True)
    (left / "model.keras").write_text("half")
    place = journal.place_for_model("model")
    assert place == journal.models / "model"
    assert not place.exists()


def test_a_half_written_line_waits_for_its_end(settings, client):
    journal = journal_of(settings, "half")
    begin(journal)
    with (journal.folder / "records.jsonl").open("a") as file:
        file.write('{"kind": "metrics", "metr')
    kinds = [record.kind for record in journal.undelivered()]
    assert kinds == ["run"]


def test_what_a_killed_writer_left_half_written_is_cut_off(settings, client):
    journal = journal_of(settings, "torn")
    begin(journal)
    with (journal.folder / "records.jsonl").open("a") as file:
        file.write('{"kind": "metrics", "metr')
    journal.release()  # as the end of its process does
    again = journal_of(settings, "torn")  # the next process
    assert not again.is_finished()
    again.finish("FAILED")
    assert again.is_finished()
    Delivery(client, settings).deliver(again)
    assert runs_of(client, "torn")[0].info.status == "FAILED"


def test_a_damaged_journal_is_one_clear_error(settings):
    journal = journal_of(settings, "damaged")
    (journal.folder / "records.jsonl").write_text("no json\n")
    with pytest.raises(TrackingError, match="damaged at byte 0"):
        list(journal.undelivered())
    (journal.folder / "records.jsonl").unlink()


def test_a_run_goes_on_without_the_lines_that_cannot_be_read(settings, client):
    journal = journal_of(settings, "half-readable")
    begin(journal)
    journal.log_metrics({"loss": 0.5}, step=0)
    Delivery(client, settings).deliver(journal)
    journal.release()
    records = journal.folder / "records.jsonl"
    whole = records.read_bytes()
    records.write_bytes(whole + b'{"kind": "metr\xff\x00\n')
    again = journal_of(settings, "half-readable")
    begin(again, once=True)
    again.log_metrics({"loss": 0.5}, step=0)
    again.log_metrics({"loss": 0.25}, step=1)
    again.finish("FINISHED")
    assert Delivery(client, settings).deliver(again)
    [run] = runs_of(client, "half-readable")
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "loss")]
    assert (run.info.status, steps) == ("FINISHED", [0, 1])
    assert run.data.tags[keys.RECORDS_LOST] == "1"
    assert (again.folder / "records.damaged").read_bytes().startswith(whole)


def test_journals_left_behind_are_found_and_delivered(settings, client):
    journal = journal_of(settings, "left")
    begin(journal)
    journal.finish("FAILED")
    assert "left" in [j.uid for j in open_journals(settings.journal_dir)]
    (settings.journal_dir / "half" / "records.jsonl").unlink(missing_ok=True)
    Delivery(client, settings).deliver_all(settings.journal_dir)
    assert open_journals(settings.journal_dir) == []
    assert runs_of(client, "left")[0].info.status == "FAILED"


def test_a_first_delivery_that_fails_leaves_one_run_per_uid(settings, client, monkeypatch):
    journal = journal_of(settings, "twice-tried")
    begin(journal)
    journal.log_metrics({"m": 0.5}, step=3)
    journal.finish("FINISHED")
    with monkeypatch.context() as patch:

        def create_and_lose(*args, **kwargs):  # the server made the run, its answer never arrived
            create(*args, **kwargs)
            raise ConnectionError("connection reset by peer")

        create = client.create_run
        patch.setattr(client, "create_run", create_and_lose)
        with pytest.raises(TrackingError, match="connection reset.*same command again"):
            Delivery(client, settings).deliver(journal)
    assert "twice-tried" in [j.uid for j in open_journals(settings.journal_dir)]
    Delivery(client, settings).deliver(journal)
    [run] = runs_of(client, "twice-tried")
    assert run.info.status == "FINISHED"
    assert run.data.metrics["m"] == 0.5


def test_a_store_that_refused_once_is_not_asked_again(settings, client, monkeypatch):
    # MLflow repeats each request for seconds: the end of a run must not wait for that thrice.
    calls = []

    def refuse(*_args, **_kwargs):
        calls.append(1)
        raise ConnectionError("connection refused")

    monkeypatch.setattr(client, "create_run", refuse)
    first, second = journal_of(settings, "refused1"), journal_of(settings, "refused2")
    delivery = Delivery(client, settings)
    for journal in (first, second):
        begin(journal)
        journal.finish("FAILED")
        with pytest.raises(TrackingError, match="connection refused"):
            delivery.deliver(journal)
    assert len(calls) == 1


def test_a_full_disk_is_one_clear_error_and_leaves_no_half_line(settings, monkeypatch):
    journal = journal_of(settings, "full-disk")
    begin(journal)
    before = (journal.folder / "records.jsonl").read_bytes()

    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.tracking.record_file.os.fsync", refuse)
        with pytest.raises(TrackingError, match=r"No space left on device.*free space"):
            journal.log_metrics({"m": 1.0})
    assert (journal.folder / "records.jsonl").read_bytes() == before
    journal.log_metrics({"m": 1.0})
    assert [r.kind for r in journal.undelivered()] == ["run", "metrics"]
    journal.release()


def test_long_values_and_many_metrics_fit_the_limits(settings, client):
    journal = journal_of(settings, "long")
    begin(journal)
    journal.log_params({f"p{i}": "x" * 9000 for i in range(130)})
    journal.log_metrics({f"m{i}": float(i) for i in range(1500)})
    journal.set_tags({"note": "y" * 9000})
    Delivery(client, settings).deliver(journal)
    [run] = runs_of(client, "long")
    assert len(run.data.params) == 130
    assert len(run.data.metrics) == 1500


def test_a_file_store_is_refused(tmp_path):
    settings = read_settings({"MLFLOW_TRACKING_URI": str(tmp_path)}, home=tmp_path)
    with pytest.raises(TrackingError, match="is a folder.*unset it to use mlruns/mlflow.db"):
        open_store(settings)


def test_a_server_that_is_down_is_one_clear_error(tmp_path):
    settings = read_settings({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, home=tmp_path)
    with pytest.raises(TrackingError, match=r"http://127.0.0.1:9 does not answer.*start it"):
        open_store(settings)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "mlruns").write_text("a file where the folder should be")
    with pytest.raises(TrackingError, match="cannot be written"):
        open_store(read_settings({}, home=tmp_path))


def test_a_journal_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "uid").write_text("a file where the folder should be")
    with pytest.raises(TrackingError, match="journal .* cannot be written"):
        Journal(tmp_path / "uid")


def test_settings_are_absolute(tmp_path):
    settings = read_settings({"BREAKHIS_ROOT": "relative"}, home=Path())
    assert settings.state_dir.is_absolute()
    assert settings.data_root is not None
    assert settings.data_root.is_absolute()
