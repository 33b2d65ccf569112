"""What a trial leaves behind: tags, metrics, figures, predictions, model; journal first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import optuna
import pandas as pd

from breakhis_search.config import StudyConfig
from breakhis_search.errors import TrackingError, TrialFailure
from breakhis_search.evaluation.intervals import bootstrap_intervals
from breakhis_search.evaluation.metrics import OBJECTIVE_TITLES
from breakhis_search.evaluation.own_metrics import OWN
from breakhis_search.evaluation.page import own_sections
from breakhis_search.settings import without_secrets
from breakhis_search.study.analysis import Findings
from breakhis_search.study.artifacts import write_artifacts, write_findings
from breakhis_search.study.candidate import Candidate
from breakhis_search.study.checkpoints import RunCheckpoint
from breakhis_search.study.context import StudyContext
from breakhis_search.study.leases import LeaseLostError
from breakhis_search.study.report import headline_intervals, keep_report, study_as_run
from breakhis_search.study.storage import STORAGE_FAULTS
from breakhis_search.tracking import keys
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.system_usage import system_usage
from breakhis_search.training.devices import Device, peak_memory_mb, reset_peak_memory
from breakhis_search.training.results import EpochReport
from breakhis_search.training.timing import Timer
from breakhis_search.training.together import CutOff

_TOLD_BY_ANOTHER = optuna.exceptions.UpdateFinishedTrialError
_SAMPLE_EVERY_S = 10.0  # as MLflow itself; an epoch that takes longer has one sample

MLFLOW_STATUS = {
    "complete": "FINISHED",
    "reused": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "interrupted": "FAILED",
}
"""Optuna's state is the truth; this is how MLflow says it."""

_NAMES = {
    keys.ROLE_TRIAL: "trial",
    keys.ROLE_FINALIST: "finalist trial",
    keys.ROLE_REFIT: "refit of trial",
}
_STAGES = {
    keys.ROLE_FINALIST: keys.STAGE_FINALISTS,
    keys.ROLE_REFIT: keys.STAGE_REFIT,
}


class TrialRecord:
    """The record of one run of a study: a trial of the search, a finalist, or the refit.

    Args:
        context: The study.
        uid: Identity of the run.
        number: Trial number.
        role: Of the run: ``keys.ROLE_TRIAL``, ``ROLE_FINALIST`` or ``ROLE_REFIT``.
        lease: On the work, which this process holds; by default that of a trial, its uid.
    """

    def __init__(
        self,
        context: StudyContext,
        *,
        uid: str,
        number: int,
        role: str = keys.ROLE_TRIAL,
        lease: str | None = None,
    ) -> None:
        self._context = context
        self._journal = context.journal(uid)
        self._number = number
        self._role = role
        self._lease = lease or uid
        self._epochs: dict[tuple[int, int, int], dict[str, Any]] = {}
        self._state = "running"
        self._facts: dict[str, str] = {}
        self._has_model = False
        self._waits = False
        self._goes_on = False
        self._sampled_at = 0.0
        self._timer = Timer()

    @property
    def journal(self) -> Journal:
        """The journal of the run."""
        return self._journal

    @property
    def checkpoint(self) -> RunCheckpoint:
        """What the run has reached."""
        return self._context.checkpoints.of(self._journal.uid)

    @property
    def device(self) -> Device:
        """Where the run trains."""
        return self._context.device

    @property
    def is_of_a_trial(self) -> bool:
        """Whether it is of a trial of the search, which a bug ends, and no finalist or refit."""
        return self._role == keys.ROLE_TRIAL

    def begin(self, timer: Timer | None = None) -> None:
        """Record that the run has started.

        Args:
            timer: Its durations; kept after every epoch for whoever has to go on with it.
        """
        self._timer = timer or self._timer
        tags = {
            **self._context.tags,
            keys.ROLE: self._role,
            keys.STAGE: _STAGES.get(self._role, self._context.stage),
            keys.STATE: "running",
            keys.TRIAL_NUMBER: str(self._number),
            # A run that goes on after it was cut off has not failed.
            **({keys.FAILURE: ""} if self._journal.is_begun else {}),
        }
        self._journal.begin(
            name=f"{self._context.name} {_NAMES[self._role]} {self._number:03d}",
            tags=tags,
            parent_uid=self._context.uid,
            experiment=self._context.experiment,
            once=True,
            turn=self._context.leases.turn_of(self._lease),
        )
        system_usage()  # the use of processors counts from here
        self._sampled_at = time.monotonic()
        self.deliver()

    def describe(self, candidate: Candidate) -> None:
        """Record hyperparameters, seed and size of the model."""
        self._facts = {
            "architecture": candidate.architecture,
            "sampling": candidate.plan.sampling_strategy,
            "hyperparameters": ", ".join(
                f"{name} {_short(value)}"
                for name, value in sorted(candidate.values.items())
                if name not in _SAID_ALREADY
            ),
        }
        weights = self._context.weights[candidate.architecture]
        origin = weights.origin + (f" {weights.sha256}" if weights.sha256 else "")
        sizes = {"training/batch_size": candidate.batch_size}
        self._journal.log_params({**_settings(self._context.config), **sizes, **candidate.values})
        self._journal.set_tags(
            {
                keys.MLFLOW_NOTE: self._description(),
                keys.ARCHITECTURE: candidate.architecture,
                keys.SAMPLING: candidate.plan.sampling_strategy,
                keys.SEED: str(candidate.seed),
                keys.WEIGHTS: origin,
                **(
                    {keys.NOT_SEARCHED: ", ".join(candidate.constants)}
                    if candidate.constants
                    else {}
                ),
            }
        )
        self._journal.log_metrics({keys.METRIC_PARAMETERS: candidate.model.count_params()})
        self.deliver()

    def add_epoch(
        self, fold: int, report: EpochReport, *, part: str | None = None, seed: int = 0
    ) -> None:
        """Record one epoch of one fold, under ``part`` (by default the fold's number)."""
        # A fold that began anew, in smaller parts, has its epochs once.
        key = (seed, fold, report.epoch)
        self._epochs[key] = {"seed": seed, "fold": fold, **asdict(report)}
        prefix = f"{keys.EPOCH}{part or f'fold_{fold}'}/"
        numbers = {k: v for k, v in asdict(report).items() if isinstance(v, float)}
        self._journal.log_metrics({prefix + k: v for k, v in numbers.items()}, step=report.epoch)
        if not self._waits:
            self.checkpoint.note_seconds(self._seconds())
            self._sample_usage()
            self.deliver()

    def _sample_usage(self) -> None:
        if time.monotonic() - self._sampled_at > _SAMPLE_EVERY_S:
            self._sampled_at = time.monotonic()
            self._journal.log_metrics(system_usage(), step=len(self._epochs))

    @contextmanager
    def epochs_at_once(self) -> Iterator[None]:
        """Record the epochs of the block together at its end: they take less time than writing."""
        self._waits = True
        try:
            with self._journal.at_once():
                yield
        finally:
            self._waits = False
        self.checkpoint.note_seconds(self._seconds())
        self.deliver()

    def note_parts(self, parts: int) -> None:
        """Record that every batch is taken in so many parts, for want of memory."""
        self._journal.set_tags({keys.BATCH_IN_PARTS: str(parts)})
        self.deliver()

    def save_model(self, model: Any) -> None:
        """Save the first fold's model, tagged ``fold``: it is never registered."""
        first = self._context.split.folds[0].validation[:1]
        with self._journal.disk_errors():
            self._context.models.write(
                model,
                self._journal.place_for_model("model"),
                example=self._context.images[first],
                class_names=self._context.class_names,
            )
        self._has_model = True

    def complete(
        self,
        value: float,
        metrics: Mapping[str, float],
        table: pd.DataFrame,
        *,
        median_epoch: int,
        findings: Findings | None = None,
    ) -> None:
        """Record scores, figures and predictions of a finished trial, and its model if saved."""
        self._journal.log_metrics(
            {
                **metrics,
                f"{keys.METRIC_OBJECTIVE}/{self._context.config.objective}": value,
                keys.METRIC_BEST_EPOCH: median_epoch,
            }
        )
        own = {name: number for name, number in metrics.items() if name.startswith(OWN)}
        self._keep_pages(value, table, findings, own)
        if self._has_model:
            self._journal.log_model(
                "model", tags={keys.ROLE: "fold", keys.STUDY: self._context.name}
            )
        self._state = "complete"

    def reuse(self, number: int, value: float) -> None:
        """Record that a trial has the result of an earlier one of the same values."""
        self._journal.log_metrics(
            {f"{keys.METRIC_OBJECTIVE}/{self._context.config.objective}": value}
        )
        self._journal.set_tags({keys.SAME_AS: str(number)})
        self._state = "reused"

    def complete_refit(self) -> None:
        """Record that a refit is complete: it has a model and no scores of its own."""
        self._state = "complete"
        self.deliver()

    def end(self, state: str, reason: str, *, goes_on: bool = False) -> None:
        """Record an end that is not a completion.

        Args:
            state: See :data:`MLFLOW_STATUS`.
            reason: Why.
            goes_on: Whether the run will be taken up again, from its last epoch.
        """
        self._state, self._goes_on = state, goes_on
        self._journal.set_tags({keys.FAILURE: without_secrets(reason)})

    def give_up(self, reason: str, timer: Timer) -> None:
        """Record that nobody brings the run to its end any more, whoever was at it last.

        Args:
            reason: Why not.
            timer: What they had spent.
        """
        self.begin()  # another machine may have been at it, whose journal is not here
        self._journal.log_metrics(_as_metrics(timer.seconds))
        self._journal.end_cut_off(reason)
        self._journal.release()
        self.deliver()

    def close(self) -> None:
        """Record durations, memory and the final state; what is not delivered yet can wait.

        Durations (``seconds/total`` and its phases) are of all processes that were at the run, also
        of those that were cut off: of a killed one until its last epoch. Pauses are in none.
        """
        startup = self._context.startup
        memory = peak_memory_mb(self._context.device)
        try:
            if not self._goes_on:
                durations = _as_metrics({**startup, **self._seconds()})
                self._journal.log_metrics({**durations, keys.METRIC_PEAK_MEMORY: memory})
                self._journal.log_metrics(system_usage(), step=len(self._epochs) + 1)
                startup.clear()
            # It will end once; where another process is at it, that one counts.
            elif self._context.leases.holds(self._lease):
                self.checkpoint.note_seconds(self._seconds())
            self._journal.set_tags({keys.STATE: self._state})
            self._journal.finish(MLFLOW_STATUS[self._state])
        finally:
            self._journal.release()

    def _seconds(self) -> dict[str, float]:
        """Seconds by phase so far, of this process and of those that were at the run before it."""
        spent = self._timer.so_far()
        return {**spent, "logging": spent.get("logging", 0.0) + self._journal.seconds_writing}

    def deliver(self) -> None:
        """Bring what is new to MLflow."""
        self._context.delivery.deliver(self._journal)

    def _keep_pages(
        self,
        value: float,
        table: pd.DataFrame,
        findings: Findings | None,
        own_metrics: Mapping[str, float],
    ) -> None:
        """Write the pages of a finalist; keep what those of a trial are made from later."""
        context, journal = self._context, self._journal
        history = pd.DataFrame(list(self._epochs.values()))
        title = f"{context.name}, {_NAMES[self._role]} {self._number}"
        facts = self._page_facts(value)
        if findings is None:
            keep_report(
                journal,
                context.config,
                table,
                history,
                title=title,
                facts=facts,
                own_metrics=own_metrics,
            )
            return
        intervals = bootstrap_intervals(table)
        with journal.disk_errors():
            write_artifacts(
                journal.artifacts,
                json.loads(study_as_run(context.config)),
                table,
                history,
                title=title,
                facts=facts,
                intervals=intervals,
                sections=(*own_sections(context.config.metrics, own_metrics), *findings.sections),
            )
            write_findings(journal.artifacts, context, table, findings, title=title, facts=facts)
        objective = context.config.objective
        journal.log_metrics({**findings.metrics, **headline_intervals(intervals, objective)})
        journal.log_artifacts()

    def _description(self) -> str:
        """What MLflow shows at the head of the run's page, as Markdown."""
        study = self._context.name + (" (SYNTHETIC DEMO DATA)" if self._context.is_demo else "")
        head = f"**{_NAMES[self._role].capitalize()} {self._number} of {study}**"
        facts = [f"- {name.capitalize()}: {value}" for name, value in self._facts.items()]
        return "\n".join([head, "", *facts, f"- Protocol: {protocol_in_words(self._context)}"])

    def _page_facts(self, value: float) -> dict[str, str]:
        context = self._context
        objective = OBJECTIVE_TITLES[context.config.objective]
        return {
            "Study": context.name + (" (SYNTHETIC DEMO DATA)" if context.is_demo else ""),
            **{k.capitalize(): v for k, v in self._facts.items()},
            "Protocol": protocol_in_words(context),
            "Objective": f"{objective} {value:.4f} (pooled out-of-fold, images)",
        }


_SAID_ALREADY = ("model/architecture", "sampling/strategy")


def _as_metrics(seconds: Mapping[str, float]) -> dict[str, float]:
    """Durations by phase as metrics."""
    return {f"{keys.SECONDS}{phase}": spent for phase, spent in seconds.items()}


def _short(value: Any) -> str:
    """A hyperparameter as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _settings(config: StudyConfig) -> dict[str, Any]:
    """What the study fixes for all its trials, named like hyperparameters: ``data/height_px``."""
    sections = {"data": config.data, "training": config.training}
    left_out = {"root", "on_bad_image"}  # where images are and what broken ones do: no settings
    settings: dict[str, Any] = {}
    for section, values in sections.items():
        for name, value in values.model_dump(exclude=left_out).items():
            if isinstance(value, dict):
                settings |= {f"{section}/{name}_{part}": number for part, number in value.items()}
            else:
                settings[f"{section}/{name}"] = value
    return settings


@contextmanager
def recorded(record: TrialRecord, timer: Timer, *, delivers: bool = True) -> Iterator[None]:
    """Begin a run, and see to it that every way out of it is recorded.

    Args:
        record: The run.
        timer: Its durations, beginning with those of processes that were at it before.
        delivers: Whether to bring its end to MLflow here.
    """
    try:
        with timer.measure("total"):
            record.begin(timer)
            reset_peak_memory(record.device)
            yield
    except optuna.TrialPruned as pruned:
        record.end("pruned", str(pruned))
        raise
    except TrialFailure as failure:
        record.end("failed", str(failure))
        raise
    except KeyboardInterrupt:
        record.end("interrupted", "interrupted by the user", goes_on=True)
        raise
    except CutOff as cut_off:
        record.end("interrupted", str(cut_off), goes_on=True)
        raise
    # The run was not at fault and will go on.
    except (TrackingError, LeaseLostError, _TOLD_BY_ANOTHER, *STORAGE_FAULTS) as error:  # type: ignore[misc]  # all are
        record.end("interrupted", str(error), goes_on=True)
        raise
    except Exception as error:  # a bug: recorded, then raised to stop the study
        record.end("failed", f"{type(error).__name__}: {error}", goes_on=not record.is_of_a_trial)
        raise
    finally:
        record.close()
        if delivers:
            record.deliver()


def protocol_in_words(context: StudyContext) -> str:
    """Return how the study is scored, in a phrase; leakage is named.

    The phrase stands on every figure page and in every registered version.
    """
    protocol = context.config.protocol
    if protocol.kind == "image":
        return f"{protocol.folds} folds BY IMAGE: patients leak, do not believe these scores"
    if protocol.kind == "holdout":
        return f"hold-out of {len(protocol.validation_accessions)} named accessions"
    if protocol.kind == "official":
        return (
            "Spanhol's five official folds, validation carved out of training"
            f" {'BY SLIDE (patients leak)' if protocol.leaks else 'by accession (patient)'},"
            " no sealed test"
        )
    if protocol.leaks:
        return f"{protocol.folds} folds BY SLIDE: patients leak, do not believe these scores"
    return f"{protocol.folds} folds, disjoint by accession (patient)"
