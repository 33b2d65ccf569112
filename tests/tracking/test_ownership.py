"""A journal belongs to the process that writes it, for as long as that lives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from breakhis_search.errors import TrackingError
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.journals import open_journals
from breakhis_search.tracking.ownership import FolderLock
from breakhis_search.tracking.store import open_store
from tests.patience import PATIENCE_S

WRITER = """
import sys
from pathlib import Path
from breakhis_search.tracking.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.begin(name="theirs", tags={}, parent_uid=None, experiment="breakhis-test")
print("begun", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_writes(folder: Path) -> Iterator[subprocess.Popen]:
    """A live process in the middle of writing a journal."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writer:
        try:
            assert writer.stdout.readline() == "begun\n"
            yield writer
        finally:
            writer.kill()


@pytest.fixture(scope="module")
def settings(tmp_path_factory, with_stores) -> Settings:
    return read_settings({}, home=with_stores(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="module")
def client(settings):
    return open_store(settings)


def uids(settings: Settings) -> list[str]:
    return [j.uid for j in open_journals(settings.journal_dir)]


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire()
    assert first.acquire(), "holding it twice is holding it"
    assert not second.acquire()
    first.release()
    first.release()
    assert second.acquire()
    assert not first.is_held
    second.release()


def test_the_journal_of_a_live_process_is_not_delivered_until_it_ends(settings, client):
    with another_process_writes(settings.journal_dir / "alive") as writer:
        assert Delivery(client, settings).deliver_all(settings.journal_dir) == 0
        assert uids(settings) == ["alive"]
        writer.kill()  # no clean-up whatsoever
        writer.wait()
        assert Delivery(client, settings).deliver_all(settings.journal_dir) == 1
    assert uids(settings) == []
    assert Delivery(client, settings).deliver_all(settings.journal_dir) == 0
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    [run] = client.search_runs([experiment], f"tags.`{keys.TRIAL_UID}` = 'alive'")
    assert run.info.status == "FAILED", "nobody else will ever end it"
    assert run.data.tags[keys.STATE] == "interrupted"


def test_a_run_that_another_process_is_recording_is_refused(settings):
    with another_process_writes(settings.journal_dir / "shared"):
        mine = Journal(settings.journal_dir / "shared")
        with pytest.raises(TrackingError, match=r"mine is being run by another process.*--new"):
            mine.begin(name="mine", tags={}, parent_uid=None, experiment="breakhis-test")
        assert len(list(mine.undelivered())) == 1, "nothing was written into it"


def test_a_run_goes_on_while_its_records_are_delivered(settings, client, monkeypatch):
    """`status --deliver` beside a run that takes over what it delivers."""
    left, taken = (Journal(settings.journal_dir / "goes-on-beside") for _ in range(2))
    left.begin(name="x", tags={}, parent_uid=None, experiment="breakhis-test")
    left.log_metrics({"loss": 0.5}, step=0)
    left.release()
    send = client.log_batch

    def send_while_another_begins(*of, **named) -> None:
        monkeypatch.setattr(client, "log_batch", send)
        taken.begin(name="x", tags={}, parent_uid=None, experiment="breakhis-test", once=True)
        send(*of, **named)

    monkeypatch.setattr(client, "log_batch", send_while_another_begins)
    assert Delivery(client, settings).deliver(left)
    taken.log_metrics({"loss": 0.25}, step=1)
    taken.finish("FINISHED")
    Delivery(client, settings).deliver(taken)
    run_id = Delivery(client, settings).run_id("goes-on-beside")
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [0, 1]


@pytest.mark.parametrize("finish", [True, False], ids=["finished", "released"])
def test_a_journal_is_given_up_when_it_ends(tmp_path, finish):
    first, second = Journal(tmp_path / "one"), Journal(tmp_path / "one")
    first.begin(name="x", tags={}, parent_uid=None, experiment="breakhis-test")
    with second.held() as is_ours:
        assert not is_ours
    if finish:
        first.finish("FINISHED")
    else:
        first.release()
    with second.held() as is_ours:
        assert is_ours


def test_a_folder_without_locks_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("breakhis_search.tracking.ownership.fcntl.flock", refuse)
    journal = Journal(tmp_path / "one")
    with pytest.raises(TrackingError, match=r"cannot be written \(Operation not supported\)"):
        journal.begin(name="x", tags={}, parent_uid=None, experiment="breakhis-test")


OPENER = """
import sys
from pathlib import Path
from breakhis_search.settings import read_settings
from breakhis_search.study.storage import open_storage
from breakhis_search.tracking.store import open_store
settings = read_settings({}, home=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
open_store(settings)
open_storage(settings.studies_uri)
"""


def test_two_processes_that_create_the_stores_at_once_both_succeed(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", OPENER, str(tmp_path)]
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors[-2000:]
