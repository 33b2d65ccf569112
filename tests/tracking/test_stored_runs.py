"""Runs read from the tables are those that MLflow's client gives."""

from __future__ import annotations

import math

import pytest

from breakhis_search.settings import read_settings
from breakhis_search.tracking import stored_runs
from breakhis_search.tracking.store import open_store
from breakhis_search.tracking.stored_runs import read_runs

WANTED = {"breakhis.role": "trial", "breakhis.study": "mine@v1"}


@pytest.fixture(scope="module")
def client(tmp_path_factory, with_stores):
    """A store with runs that are wanted, and others: deleted, of other studies, of others."""
    client = open_store(read_settings({}, home=with_stores(tmp_path_factory.mktemp("home"))))
    ours, gone, theirs = (
        client.create_experiment(name) for name in ("breakhis-binary", "breakhis-gone", "theirs")
    )
    for number, experiment in enumerate((ours, ours, ours, ours, gone, theirs)):
        study = "mine@v1" if number != 1 else "other@v1"
        tags = {"breakhis.role": "trial", "breakhis.study": study}
        run = client.create_run(experiment, run_name=f"run {number}", tags=tags).info.run_id
        client.log_param(run, "head/units", number)
        client.log_metric(run, "score", 0.5, step=0)
        client.log_metric(run, "score", 0.75, step=1)
        client.log_metric(run, "loss", math.nan)
        if number in (0, 3):
            client.set_terminated(run, "FINISHED")
        if number == 2:
            client.delete_run(run)
    client.delete_experiment(gone)
    return client


class Asked:
    """A client that counts how often it is asked for runs."""

    def __init__(self, client, uri: str) -> None:
        self._client, self.tracking_uri, self.times = client, uri, 0

    def search_runs(self, *given, **named):
        self.times += 1
        return self._client.search_runs(*given, **named)

    def search_experiments(self, **named):
        return self._client.search_experiments(**named)


def by_id(runs) -> dict:
    """Runs by their id; NaN as a word, which equals itself."""
    return {
        run.run_id: (
            *(run.name, run.experiment_id, run.status, run.started_ms, run.ended_ms),
            *(run.tags, run.params),
            {name: "nan" if math.isnan(value) else value for name, value in run.metrics.items()},
        )
        for run in runs
    }


def test_tables_say_what_the_client_says(client):
    asked = Asked(client, client.tracking_uri)
    found = read_runs(asked, WANTED)
    assert asked.times == 0
    assert {run.name for run in found} == {"run 0", "run 3"}
    assert [run.started_ms for run in found] == sorted((r.started_ms for r in found), reverse=True)
    assert by_id(found) == by_id(stored_runs._from_client(client, WANTED, [""]))
    assert all(run.metrics["score"] == 0.75 for run in found)


def test_only_metrics_that_are_wanted_are_read(client):
    some = read_runs(client, WANTED, metrics=["sc", "none"])
    assert by_id(some) == by_id(stored_runs._from_client(client, WANTED, ["sc", "none"]))
    assert {name for run in some for name in run.metrics} == {"score"}
    assert all(run.params and run.tags for run in some)
    assert not any(run.metrics for run in read_runs(client, WANTED, metrics=()))


@pytest.mark.parametrize("uri", ["sqlite:///{folder}/none.db", "http://127.0.0.1:9"])
def test_where_there_are_no_tables_to_read_the_client_is_asked(client, tmp_path, uri):
    asked = Asked(client, uri.format(folder=tmp_path))
    assert by_id(read_runs(asked, WANTED)) == by_id(read_runs(client, WANTED))
    assert asked.times == 1


def test_a_run_that_begins_while_runs_are_read_is_left_for_the_next_time(client, monkeypatch):
    before = {run.run_id for run in read_runs(client, WANTED)}
    [experiment] = client.search_experiments(filter_string="name = 'breakhis-binary'")
    begun: list[str] = []

    class Begins(stored_runs.StoredRun):
        """Each run that is found has another one begin."""

        def __init__(self, *of) -> None:
            super().__init__(*of)
            run = client.create_run(experiment.experiment_id, tags=WANTED)
            begun.append(run.info.run_id)

    monkeypatch.setattr(stored_runs, "StoredRun", Begins)
    asked = Asked(client, client.tracking_uri)
    assert {run.run_id for run in read_runs(asked, WANTED)} == before
    assert len(begun) == len(before)
    for run_id in begun:
        client.delete_run(run_id)
