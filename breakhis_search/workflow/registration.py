"""The end of a run: refit the best configuration, package it, prove that it works, register it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from breakhis_search.comparison.gate import broken_floors
from breakhis_search.comparison.leaderboard import read_leaderboard
from breakhis_search.comparison.registry import Registered, register
from breakhis_search.data.images import prepare
from breakhis_search.evaluation.predictions import softmax
from breakhis_search.serving.package import Packaged, package_classifier
from breakhis_search.serving.verification import verify_in_fresh_process
from breakhis_search.study.candidate import Candidate
from breakhis_search.study.context import StudyContext
from breakhis_search.study.records import TrialRecord, protocol_in_words, recorded
from breakhis_search.study.refit import claim_refit, refit
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import tracking_errors
from breakhis_search.training.trainer import Timer

_SELECTED_TRIAL = keys.PREFIX + "selected_trial"
_MODEL_SHA256 = keys.PREFIX + "model_sha256"
_REFIT_OF = "refit_of"


def refit_and_register(
    study: optuna.Study,
    context: StudyContext,
    client: Any,
    example: Path,
    say: Callable[[str], None],
) -> tuple[Registered | None, str | None]:
    """Register the best configuration of a study, fitted to all development patients.

    Args:
        study: The Optuna study: holds the values that were drawn.
        context: The study.
        client: MLflow client.
        example: A real image the packed model must answer.
        say: Told what is being done.

    Returns:
        The registered version, or ``None`` and the reason.
    """
    if context.tags[keys.LEAKY] == "true":
        return None, "the protocol leaks patients: its models are never registered"
    best = _best_trial(study, context, client)
    if best is None:
        return None, "no trial is complete"
    if study.user_attrs.get(_REFIT_OF) == best.number:
        return None, f"trial {best.number} is still the best and is registered already"
    say(f"refitting trial {best.number} on all {len(context.split.development)} development images")
    run = _RefitRun(uuid.uuid4().hex, best, context, client)
    claim_refit(study, run.uid)
    with recorded(run.record, run.timer):
        registered = run.register(example, say)
        study.set_user_attr(_REFIT_OF, best.number)
    return registered, None


def _best_trial(study: optuna.Study, context: StudyContext, client: Any) -> FrozenTrial | None:
    """First of the leaderboard, which breaks ties by likelihood."""
    with tracking_errors(context.settings.tracking_uri):
        board = read_leaderboard(client, [context.name], study_uid=context.uid)
    complete = {t.number: t for t in study.get_trials(states=(TrialState.COMPLETE,))}
    ranked = [n for n in board["trial"] if n in complete]
    return complete[ranked[0]] if ranked else None


class _RefitRun:
    """The run in MLflow that ends with a registered version."""

    def __init__(self, uid: str, best: FrozenTrial, context: StudyContext, client: Any) -> None:
        self.uid = uid
        self.timer = Timer()
        self.record = TrialRecord(context, uid=uid, number=best.number, role="refit")
        self._best = best
        self._context = context
        self._client = client

    def register(self, example: Path, say: Callable[[str], None]) -> Registered:
        """Fit, package, verify in a fresh process, and register."""
        candidate = refit(self._context, self._best, record=self.record, timer=self.timer)
        say("packaging the model and checking it in a fresh process")
        with self.timer.measure("package"):
            packaged = self._package(candidate)
        expected = _answer(candidate.model, example, self._context)
        with self.timer.measure("verify"):
            folder = self.record.journal.folder
            verify_in_fresh_process(packaged.folder, example, expected, workdir=folder)
        with tracking_errors(self._context.settings.tracking_uri):
            return self._register(candidate, packaged)

    def _package(self, candidate: Candidate) -> Packaged:
        context = self._context
        return package_classifier(
            candidate.model,
            self.record.journal.models / "classifier",
            class_names=context.class_names,
            height_px=context.config.data.height_px,
            width_px=context.config.data.width_px,
            metadata={
                "study": context.name,
                "trial": self._best.number,
                "protocol": protocol_in_words(context),
                "split_digest": context.split.digest,
            },
        )

    def _register(self, candidate: Candidate, packaged: Packaged) -> Registered:
        context, client = self._context, self._client
        self.record.journal.log_model("classifier", tags={keys.ROLE: "refit"})
        self.record.complete_refit()
        source = client.get_run(context.delivery.run_id(self._best.user_attrs["trial_uid"]))
        [model] = client.search_logged_models(
            [source.info.experiment_id],
            filter_string=f"tags.`{keys.TRIAL_UID}` = '{self.uid}'",
        )
        metrics = source.data.metrics
        broken = broken_floors(metrics, context.config.registration.floors)
        return register(
            client,
            name=keys.registered_name(context.config.task, demo=context.is_demo),
            model_id=model.model_id,
            run_id=str(context.delivery.run_id(self.uid)),
            tags=self._tags(candidate, packaged, broken),
            description=_describe(self._best, metrics, candidate, context),
            broken=broken,
        )

    def _tags(self, candidate: Candidate, packaged: Packaged, broken: list[str]) -> dict[str, str]:
        tags = {
            **self._context.tags,
            keys.ROLE: "refit",
            keys.TRIAL_UID: self.uid,
            keys.ARCHITECTURE: candidate.architecture,
            keys.SAMPLING: candidate.plan.sampling_strategy,
            _SELECTED_TRIAL: str(self._best.number),
            _MODEL_SHA256: packaged.model_sha256,
            "score_out_of_fold": f"{self._best.value:.4f}",
        }
        return {**tags, keys.BROKEN_FLOORS: "; ".join(broken)} if broken else tags


def _answer(model: Any, image: Path, context: StudyContext) -> npt.NDArray[np.float64]:
    """Probabilities of one image file, float64 [K], from this process."""
    height_px, width_px, _ = context.input_shape
    batch = prepare(image.read_bytes(), height_px, width_px)[None].astype(np.float32)
    answer: npt.NDArray[np.float64] = softmax(np.asarray(model.predict_on_batch(batch)))[0]
    return answer


def _describe(
    best: FrozenTrial, metrics: dict[str, float], candidate: Candidate, context: StudyContext
) -> str:
    """What a reader of the registry must know, in Markdown."""
    objective = context.config.objective
    patient = metrics.get(f"patient/{objective}")
    demo = "**SYNTHETIC DEMO DATA: of no use on tissue.**\n\n" if context.is_demo else ""
    return (
        f"{demo}{candidate.architecture}, trial {best.number} of {context.name}, refitted on"
        f" all {len(context.split.development)} development images."
        f"\n\n* out-of-fold {objective} (images): {best.value:.4f}"
        + (f"\n* out-of-fold {objective} (patients): {patient:.4f}" if patient is not None else "")
        + f"\n* protocol: {protocol_in_words(context)}"
        + "".join(f"\n* {note}" for note in context.split.notes)
        + "\n\nThe sealed test has not been opened for it. Not a medical device."
    )
