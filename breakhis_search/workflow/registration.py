"""The end of a run: refit the selected finalist, package it, prove that it works, register it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from breakhis_search.comparison.gate import GateRules, judge_floors
from breakhis_search.comparison.registered import Registered
from breakhis_search.comparison.registry import register
from breakhis_search.data.images import prepare
from breakhis_search.data.stain import normalize_stain
from breakhis_search.evaluation.calibration import (
    Calibration,
    calibrate_table,
    fit_calibration,
)
from breakhis_search.evaluation.metrics import compute_metrics
from breakhis_search.evaluation.thresholds import Thresholds, lock_thresholds
from breakhis_search.reporting.attach import attach_paper_trail
from breakhis_search.serving.package import Packaged, package_classifier
from breakhis_search.serving.verification import FreshProcess
from breakhis_search.study.candidate import Candidate, prior_shift, stain_reference
from breakhis_search.study.context import StudyContext
from breakhis_search.study.leases import lead_of
from breakhis_search.study.records import TrialRecord, protocol_in_words, recorded
from breakhis_search.study.refit import refit
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import tracking_errors
from breakhis_search.training.timing import Timer

_REFIT_OF = "refit_of"
"""User attribute of a study: trial number and seeds of the finalist that was registered last."""

_REFIT_BEGUN = "refit_begun"
"""User attribute of a study: ``mark`` (as :data:`_REFIT_OF`) and ``uid`` of the latest refit."""

_LONGEST_TAG = 5000  # of a model version in MLflow


@dataclass(frozen=True)
class Winner:
    """The finalist that was selected.

    Attributes:
        trial: The search trial whose configuration it is.
        run_id: The finalist's MLflow run.
        table: Its out-of-fold predictions, all seeds.
        seeds: How many seeds it was trained on.
        why: Why this one, in words.
        selection: The tied set, one row per finalist.
        found: What else was found of the study then, as tags.
    """

    trial: FrozenTrial
    run_id: str
    table: pd.DataFrame
    seeds: int
    why: str
    selection: pd.DataFrame
    found: Mapping[str, str]


def refit_and_register(
    study: optuna.Study,
    winner: Winner,
    context: StudyContext,
    client: Any,
    example: Path,
    say: Callable[[str], None],
) -> tuple[Registered | None, str | None]:
    """Register the selected configuration of a study, fitted to all development patients.

    Args:
        study: The Optuna study: remembers what was registered.
        winner: The selected finalist.
        context: The study.
        client: MLflow client.
        example: A real image the packed model must answer.
        say: Told what is being done.

    Returns:
        The registered version, or ``None`` and the reason.
    """
    reason = context.config.protocol.unregistrable_because
    if reason is not None:
        return None, reason
    mark = [winner.trial.number, winner.seeds]
    if study.user_attrs.get(_REFIT_OF) == mark:
        return None, f"trial {winner.trial.number} is still selected and is registered already"
    images = len(context.split.development)
    say(f"refitting trial {winner.trial.number} on all {images} development images")
    run = _RefitRun(_uid_of_refit(study, mark), winner, context, client)
    with recorded(run.record, run.timer):
        registered = run.register(example, say)
        study.set_user_attr(_REFIT_OF, mark)
    run.record.checkpoint.drop()
    attach_paper_trail(client, registered.name, registered.version, say)
    return registered, None


def _uid_of_refit(study: optuna.Study, mark: list[int]) -> str:
    """The run of the refit of a winner; one that was cut off goes on in its own."""
    begun = study.user_attrs.get(_REFIT_BEGUN) or {}
    if begun.get("mark") == mark:
        return str(begun["uid"])
    uid = uuid.uuid4().hex
    study.set_user_attr(_REFIT_BEGUN, {"mark": mark, "uid": uid})
    return uid


def ended_refits(study: optuna.Study) -> set[str]:
    """Return the uid of the refit, if it led to a registered version."""
    begun = study.user_attrs.get(_REFIT_BEGUN) or {}
    is_over = bool(begun) and begun["mark"] == study.user_attrs.get(_REFIT_OF)
    return {str(begun["uid"])} if is_over else set()


class _RefitRun:
    """The run in MLflow that ends with a registered version."""

    def __init__(self, uid: str, winner: Winner, context: StudyContext, client: Any) -> None:
        self.uid = uid
        self.record = TrialRecord(
            context,
            uid=uid,
            number=winner.trial.number,
            role=keys.ROLE_REFIT,
            lease=lead_of(context.uid),
        )
        self.timer = Timer(self.record.checkpoint.seconds())
        self._winner = winner
        self._context = context
        self._client = client

    def register(self, example: Path, say: Callable[[str], None]) -> Registered:
        """Fit, calibrate, package, verify in a fresh process, and register."""
        with FreshProcess(self.record.journal.folder) as fresh:
            candidate = refit(
                self._context, self._winner.trial, record=self.record, timer=self.timer
            )
            with self.timer.measure("calibrate"):
                calibration = self._calibrate(candidate)
                thresholds = self._lock_thresholds(calibration)
            say("packaging the model and checking it in a fresh process")
            with self.timer.measure("package"):
                packaged = self._package(candidate, calibration, thresholds)
            expected = _answer(candidate, example, calibration, self._context)
            with self.timer.measure("verify"):
                fresh.verify(packaged.folder, example, expected)
        with tracking_errors(self._context.settings.tracking_uri):
            return self._register(candidate, packaged, calibration, thresholds)

    def _calibrate(self, candidate: Candidate) -> Calibration:
        """The temperature of the finalist's out-of-fold logits, its shift of the prior undone."""
        return fit_calibration(self._winner.table, prior_shift(candidate, self._context))

    def _lock_thresholds(self, calibration: Calibration) -> Thresholds | None:
        if self._context.config.task != "binary":
            return None
        return lock_thresholds(calibrate_table(self._winner.table, calibration))

    def _package(
        self, candidate: Candidate, calibration: Calibration, thresholds: Thresholds | None
    ) -> Packaged:
        context = self._context
        return package_classifier(
            candidate.model,
            self.record.journal.place_for_model("classifier"),
            class_names=context.class_names,
            height_px=context.config.data.height_px,
            width_px=context.config.data.width_px,
            calibration=calibration,
            thresholds=thresholds,
            stain=stain_reference(candidate, context, context.split.development),
            metadata={
                "study": context.name,
                "trial": self._winner.trial.number,
                "protocol": protocol_in_words(context),
                "split_digest": context.split.digest,
            },
        )

    def _register(
        self,
        candidate: Candidate,
        packaged: Packaged,
        calibration: Calibration,
        thresholds: Thresholds | None,
    ) -> Registered:
        context, client = self._context, self._client
        self._keep_selection()
        self.record.journal.log_model("classifier", tags={keys.ROLE: "refit", **_digests(packaged)})
        self.record.complete_refit()
        run_id = str(context.delivery.run_id(self.uid))
        [model] = client.search_logged_models(
            [client.get_run(run_id).info.experiment_id],
            filter_string=f"tags.`{keys.TRIAL_UID}` = '{self.uid}'",
        )
        metrics = compute_metrics(self._winner.table)
        floors = judge_floors(metrics, context.config.registration.floors, where="out-of-fold")
        # A run that was cut off before may have brought its own package to MLflow already.
        tags = {**self._tags(candidate, metrics), **_digests(packaged), **_digests_of(model)}
        tags[keys.CALIBRATION] = json.dumps(calibration.to_dict())
        if thresholds is not None:
            tags[keys.THRESHOLDS] = json.dumps(thresholds.to_dict())
        return register(
            client,
            name=keys.registered_name(context.config.task, demo=context.is_demo),
            model_id=model.model_id,
            run_id=run_id,
            tags=tags,
            description=_describe(self._winner, metrics, candidate, context),
            floors=floors,
            opens_sealed=keys.SEALED_DIGEST in tags
            and bool(context.config.registration.sealed_floors),
            scores=_headline(metrics, context.config.objective),
        )

    def _keep_selection(self) -> None:
        """Keep the tied set with this run: the study's own changes when the study goes on."""
        journal = self.record.journal
        file = journal.artifacts / keys.ARTIFACT_SELECTION
        with journal.disk_errors():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._winner.selection.to_csv(file, index=False)
        journal.log_artifacts()

    def _tags(self, candidate: Candidate, metrics: Mapping[str, float]) -> dict[str, str]:
        config = self._context.config
        rules = GateRules(
            objective=config.objective,
            alpha=config.registration.alpha,
            non_inferiority_margin=config.registration.non_inferiority_margin,
            floors=config.registration.floors,
            sealed_floors=config.registration.sealed_floors,
        )
        return {
            **self._context.tags,
            **{name: text[:_LONGEST_TAG] for name, text in self._winner.found.items()},
            keys.ROLE: keys.ROLE_REFIT,
            keys.TRIAL_UID: self.uid,
            keys.ARCHITECTURE: candidate.architecture,
            keys.SAMPLING: candidate.plan.sampling_strategy,
            keys.EVIDENCE_RUN: self._winner.run_id,
            keys.GATE_RULES: rules.to_json(),
            keys.WHY_SELECTED: self._winner.why,
            keys.SELECTED_TRIAL: str(self._winner.trial.number),
            "score_out_of_fold": f"{metrics[f'image/{config.objective}']:.4f}",
        }


def _digests(packaged: Packaged) -> dict[str, str]:
    return {keys.MODEL_SHA256: packaged.model_sha256, keys.PACKAGE_SHA256: packaged.sha256}


def _digests_of(model: Any) -> dict[str, str]:
    """Digests of the files that a logged model was brought to MLflow with."""
    names = (keys.MODEL_SHA256, keys.PACKAGE_SHA256)
    return {name: model.tags[name] for name in names if name in model.tags}


def _answer(
    candidate: Candidate, file: Path, calibration: Calibration, context: StudyContext
) -> npt.NDArray[np.float64]:
    """Probabilities of one image file, float64 [K], from this process."""
    height_px, width_px, _ = context.input_shape
    image = prepare(file.read_bytes(), height_px, width_px)
    reference = stain_reference(candidate, context, context.split.development)
    if reference is not None:
        image = normalize_stain(image, reference)
    logits = candidate.model.predict_on_batch(image[None].astype(np.float32))
    answers = calibration.calibrated_probabilities(np.asarray(logits))
    return np.asarray(answers[0])


def _headline(metrics: Mapping[str, float], objective: str) -> dict[str, float]:
    names = (f"image/{objective}", f"patient/{objective}")
    return {f"out_of_fold/{name}": metrics[name] for name in names if name in metrics}


def _describe(
    winner: Winner, metrics: Mapping[str, float], candidate: Candidate, context: StudyContext
) -> str:
    """What a reader of the registry must know, in Markdown."""
    demo = "**SYNTHETIC DEMO DATA: of no use on tissue.**\n\n" if context.is_demo else ""
    scores = _headline(metrics, context.config.objective)
    return (
        f"{demo}{candidate.architecture}, trial {winner.trial.number} of {context.name}, refitted"
        f" on all {len(context.split.development)} development images.\n"
        + "".join(
            f"\n* {name}: {value:.4f} (mean of {winner.seeds} seeds)"
            for name, value in scores.items()
        )
        + f"\n* protocol: {protocol_in_words(context)}"
        + "".join(f"\n* {note}" for note in context.split.notes)
        + f"\n* why this one: {winner.why}"
        + "\n\nThe sealed test has not been opened for it. Not a medical device."
    )
