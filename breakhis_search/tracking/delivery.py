"""From the journal to MLflow: in order, at least once, with the result of exactly once.

Creations are looked up first by the uid the journal carries; params, tags and metrics with a fixed
timestamp are idempotent in MLflow; artifacts overwrite themselves.

Two things are not delivered. What a process recorded of a run that another machine has taken over:
the run carries the turn of the latest (:meth:`breakhis_search.study.leases.Leases.turn_of`). And
what MLflow or the journal itself refuses for a reason of this one run: it is set aside, told, and
keeps no other run waiting.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from breakhis_search.errors import JournalError, TrackingError
from breakhis_search.settings import Settings, without_secrets
from breakhis_search.tracking import keys
from breakhis_search.tracking.datasets import dataset_inputs
from breakhis_search.tracking.journal import TAKEN_OVER, Journal
from breakhis_search.tracking.journals import end_left_behind
from breakhis_search.tracking.logged_models import send_model
from breakhis_search.tracking.record_batch import RecordBatch, shortened
from breakhis_search.tracking.record_file import Record
from breakhis_search.tracking.refusals import faults_of_a_run
from breakhis_search.tracking.store import ensure_experiment, tracking_errors

_NOT_DRAWN = "figures/not_drawn.txt"
MakeReport = Callable[[Journal], Mapping[str, float]]
"""Makes the artifacts of a journal from what is under its ``report``; returns further metrics."""


class Delivery:
    """Carries journals to one MLflow store.

    Args:
        client: From :func:`breakhis_search.tracking.store.open_store`.
        settings: Where things are.
        make_report: Makes pages and figures when they are due.
        complain: Told, in words, what was set aside or could not be drawn.
    """

    def __init__(
        self,
        client: Any,
        settings: Settings,
        make_report: MakeReport | None = None,
        *,
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._make_report = make_report
        self._complain = complain
        self._run_ids: dict[str, str] = {}
        self._experiment_ids: dict[str, str] = {}
        self._refusal: TrackingError | None = None
        self._told_elsewhere: dict[str, set[tuple[str, int]]] = {}

    def deliver(self, journal: Journal) -> bool:
        """Send what is undelivered of one journal; ``False`` where another process does.

        Its writer may go on meanwhile.

        Raises:
            TrackingError: MLflow refused; what was sent stays marked as sent.
        """
        if self._refusal:  # the run is ending: do not wait for the same server again
            raise self._refusal
        try:
            with tracking_errors(self._settings.tracking_uri):
                return self._send_all(journal)
        except JournalError as error:
            journal.set_aside(str(error))
            self._complain(
                f"the records of run {journal.uid} are set aside: {error.what}; the other runs are"
                " not affected, `status --deliver` tries again"
            )
            return True
        except TrackingError as error:
            self._refusal = error
            raise

    def _send_all(self, journal: Journal) -> bool:
        with journal.delivering() as is_ours, faults_of_a_run(journal):
            if not is_ours or self._is_set_aside(journal):
                return is_ours
            batch = RecordBatch()
            for record in journal.undelivered():
                if not batch.takes(record):
                    self._send_batch(journal, batch)
                    batch = RecordBatch()
                    self._send(journal, record)
                    journal.mark_delivered(record)
            self._send_batch(journal, batch)
            journal.drop_delivered_files()
        return True

    def _is_set_aside(self, journal: Journal) -> bool:
        """Tell whether nothing may be sent; where several machines write, ask who came last."""
        if journal.set_aside_because is not None:
            return True
        run_id = self.run_id(journal.uid) if self._settings.shares_runs else None
        if run_id is None:
            return False
        latest = int(self._client.get_run(run_id).data.tags.get(keys.TURN, 0))
        if latest > journal.turn:
            journal.set_aside(TAKEN_OVER)
        return latest > journal.turn

    def _send_batch(self, journal: Journal, batch: RecordBatch) -> None:
        if batch.last is None:
            return
        run_id = self._own_run(journal)
        if journal.uid not in self._told_elsewhere:
            self._told_elsewhere[journal.uid] = self._told_by_others(journal, run_id)
        batch.leave_out(self._told_elsewhere[journal.uid])
        for part in batch.parts():
            self._client.log_batch(run_id, **part)
        journal.mark_delivered(batch.last)

    def deliver_all(self, *folders: Path) -> int:
        """End and send what earlier, interrupted runs left behind; return how many those were.

        What belongs to a process that is still alive is left to it.
        """
        # A parent must exist before its children name it: parents are the older journals.
        return sum(self.deliver(journal) for journal in end_left_behind(*folders))

    def flush(self) -> None:
        """Do nothing: everything was brought over at once."""

    def close(self) -> None:
        """Do nothing: there is nothing to end."""

    def run_id(self, uid: str) -> str | None:
        """Return the MLflow run id of a delivered run, or ``None``."""
        return self._run_in(uid, self._experiment_ids.values()) or self._run_in(
            uid, self._all_experiments()
        )

    def _run_in(self, uid: str, experiments: Iterable[str]) -> str | None:
        if uid not in self._run_ids:
            found = self._find(uid, experiments)
            if found is None:
                return None
            self._run_ids[uid] = found
        return self._run_ids[uid]

    def _all_experiments(self) -> list[str]:
        return [e.experiment_id for e in self._client.search_experiments()]

    def _find(self, uid: str, experiments: Iterable[str]) -> str | None:
        ids = list(experiments)
        if not ids:
            return None
        runs = self._client.search_runs(
            ids, filter_string=f"tags.`{keys.TRIAL_UID}` = '{uid}'", max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

    def _send(self, journal: Journal, record: Record) -> None:
        send: dict[str, Callable[[Journal, dict[str, Any]], None]] = {
            "run": self._send_run,
            "report": self._send_report,
            "artifacts": self._send_artifacts,
            "model": self._send_model,
            "finish": self._send_finish,
        }
        send[record.kind](journal, record.body)

    def _send_run(self, journal: Journal, body: dict[str, Any]) -> None:
        name = body["experiment"]
        if name not in self._experiment_ids:
            self._experiment_ids[name] = ensure_experiment(self._client, name, self._settings)
        turn = body.get("turn", 0)
        tags = {**body["tags"], keys.TRIAL_UID: journal.uid, keys.TURN: str(turn)}
        if body["parent_uid"]:
            parent = self.run_id(body["parent_uid"])
            if parent:
                tags[keys.MLFLOW_PARENT] = parent
        existing = self._run_in(journal.uid, [self._experiment_ids[name]])
        if existing:
            self._told_elsewhere[journal.uid] = self._told_by_others(journal, existing)
            self._client.update_run(existing, status="RUNNING")
            self._log_tags(existing, tags)
            self._log_dataset(existing, tags)
            return
        run = self._client.create_run(
            self._experiment_ids[name],
            start_time=body["time_ms"],
            tags=shortened(tags),
            run_name=body["name"],
        )
        self._run_ids[journal.uid] = run.info.run_id
        self._told_elsewhere[journal.uid] = set()
        self._log_dataset(run.info.run_id, tags)

    def _log_dataset(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Say what the run was given; MLflow keeps an input that it has already as it is."""
        if inputs := dataset_inputs(tags):
            self._client.log_inputs(run_id, datasets=inputs)

    def _told_by_others(self, journal: Journal, run_id: str) -> set[tuple[str, int]]:
        """Name and step of all metrics of a run, if another machine may have told any of them.

        What is not delivered yet may be older than what another machine told since: the journal
        is behind then, whoever has the run now.
        """
        if not journal.is_new_to_mlflow and journal.knows_all_turns:
            return set()
        data = self._client.get_run(run_id).data
        return {
            (name, point.step)
            for name in data.metrics
            for point in self._client.get_metric_history(run_id, name)
        }

    def _own_run(self, journal: Journal) -> str:
        """The run of a journal whose ``run`` record was delivered, perhaps by another process."""
        found = self.run_id(journal.uid)
        if found is None:
            raise JournalError(
                f"its run is not in MLflow any more (journal {journal.folder})",
                remedy="restore the run there, or delete that folder",
            )
        return found

    def _log_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(k, v) for k, v in shortened(tags).items()])

    def _send_report(self, journal: Journal, body: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        if not journal.report.is_dir():  # delivered before, and deleted; the cursor was lost
            return
        run_id = self._own_run(journal)
        found = self._draw(journal, run_id)
        self._send_artifacts(journal, {})
        # A courier that was killed just now may have told them: the time it took was another one.
        told = self._client.get_run(run_id).data.metrics
        metrics = [Metric(k, v, body["time_ms"], 0) for k, v in found.items() if k not in told]
        self._client.log_batch(run_id, metrics=metrics)

    def _draw(self, journal: Journal, run_id: str) -> Mapping[str, float]:
        """Make the page of a run; where that fails, the run is told without one."""
        if self._make_report is None:
            message = "a journal asks for a report and nobody here can make one"
            raise TypeError(message)
        try:
            with journal.disk_errors():
                return self._make_report(journal)
        except TrackingError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of a picture costs no result
            note = journal.artifacts / _NOT_DRAWN
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(without_secrets(traceback.format_exc()), encoding="utf-8")
            why = without_secrets(f"{type(error).__name__}: {error}")
            self._log_tags(run_id, {keys.PAGE_FAILED: why})
            self._complain(
                f"the page of run {journal.uid} could not be drawn ({why}); its scores and"
                f" predictions are in MLflow, the traceback in {_NOT_DRAWN} there"
            )
            return {}

    def _send_artifacts(self, journal: Journal, _: dict[str, Any]) -> None:
        if journal.artifacts.is_dir():
            self._client.log_artifacts(self._own_run(journal), str(journal.artifacts))

    def _send_model(self, journal: Journal, body: dict[str, Any]) -> None:
        name, tags = body["name"], body["tags"]
        send_model(self._client, self._own_run(journal), journal, name=name, tags=tags)

    def _send_finish(self, journal: Journal, body: dict[str, Any]) -> None:
        self._client.set_terminated(
            self._own_run(journal), status=body["status"], end_time=body["time_ms"]
        )
