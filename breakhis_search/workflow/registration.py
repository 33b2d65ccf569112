"""The end of a run: refit the best configuration, package it, prove that it works, register it."""

from __future__ import annotations

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
from breakhis_search.study.context import StudyContext
from breakhis_search.study.records import protocol_in_words
from breakhis_search.study.refit import Refit, refit
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import tracking_errors

_SELECTED_TRIAL = keys.PREFIX + "selected_trial"
_MODEL_SHA256 = keys.PREFIX + "model_sha256"
_BROKEN_FLOORS = keys.PREFIX + "broken_floors"
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
        return None, "the image protocol leaks patients: its models are never registered"
    best = _best_trial(study, context, client)
    if best is None:
        return None, "no trial is complete"
    if study.user_attrs.get(_REFIT_OF) == best.number:
        return None, f"trial {best.number} is still the best and is registered already"
    say(f"refitting trial {best.number} on all {len(context.split.development)} development images")
    epochs = int(best.user_attrs["median_epoch"])
    fitted = refit(context, best.params, trial_number=best.number, epochs=epochs)
    state = "failed"
    try:
        registered = _package_and_register(fitted, best, context, client, example, say)
        state = "complete"
    finally:
        if state != "complete":
            fitted.record.end(state, "the refit could not be registered")
        fitted.record.close(fitted.timer.seconds)
    study.set_user_attr(_REFIT_OF, best.number)
    return registered, None


def _best_trial(study: optuna.Study, context: StudyContext, client: Any) -> FrozenTrial | None:
    """First of the leaderboard, which breaks ties by likelihood."""
    with tracking_errors(context.settings.tracking_uri):
        board = read_leaderboard(client, [context.name])
    complete = {t.number: t for t in study.get_trials(states=(TrialState.COMPLETE,))}
    ranked = [n for n in board["trial"] if n in complete]
    return complete[ranked[0]] if ranked else None


def _package_and_register(
    fitted: Refit,
    best: FrozenTrial,
    context: StudyContext,
    client: Any,
    example: Path,
    say: Callable[[str], None],
) -> Registered:
    say("packaging the model and checking it in a fresh process")
    with fitted.timer.measure("package"):
        packaged = _package(fitted, best, context)
    expected = _answer(fitted.model, example, context)
    with fitted.timer.measure("verify"):
        verify_in_fresh_process(
            packaged.folder, example, expected, workdir=fitted.record.journal.folder
        )
    with tracking_errors(context.settings.tracking_uri):
        return _register(fitted, best, packaged, context, client)


def _package(fitted: Refit, best: FrozenTrial, context: StudyContext) -> Packaged:
    return package_classifier(
        fitted.model,
        fitted.record.journal.models / "classifier",
        class_names=context.class_names,
        height_px=context.config.data.height_px,
        width_px=context.config.data.width_px,
        metadata={
            "study": context.name,
            "trial": best.number,
            "protocol": protocol_in_words(context),
            "split_digest": context.split.digest,
        },
    )


def _answer(model: Any, image: Path, context: StudyContext) -> npt.NDArray[np.float64]:
    """Probabilities of one image file, float64 [K], from this process."""
    height_px, width_px, _ = context.input_shape
    batch = prepare(image.read_bytes(), height_px, width_px)[None].astype(np.float32)
    answer: npt.NDArray[np.float64] = softmax(np.asarray(model.predict_on_batch(batch)))[0]
    return answer


def _register(
    fitted: Refit, best: FrozenTrial, packaged: Packaged, context: StudyContext, client: Any
) -> Registered:
    fitted.record.journal.log_model("classifier", tags={keys.ROLE: "refit"})
    fitted.record.complete_refit()
    run_id = context.delivery.run_id(fitted.uid)
    source = _trial_run(context, best, client)
    [model] = client.search_logged_models(
        [source.info.experiment_id],
        filter_string=f"tags.`{keys.TRIAL_UID}` = '{fitted.uid}'",
    )
    metrics = source.data.metrics
    broken = broken_floors(metrics, context.config.registration.floors)
    tags = {
        **context.tags,
        keys.ROLE: "refit",
        keys.TRIAL_UID: fitted.uid,
        keys.ARCHITECTURE: fitted.candidate.architecture,
        keys.SAMPLING: fitted.candidate.plan.sampling_strategy,
        _SELECTED_TRIAL: str(best.number),
        _MODEL_SHA256: packaged.model_sha256,
        "score_out_of_fold": f"{best.value:.4f}",
    }
    if broken:
        tags[_BROKEN_FLOORS] = "; ".join(broken)
    return register(
        client,
        name=keys.registered_name(context.config.task, demo=context.is_demo),
        model_id=model.model_id,
        run_id=str(run_id),
        tags=tags,
        description=_describe(best, metrics, fitted, context),
        broken=broken,
    )


def _trial_run(context: StudyContext, best: FrozenTrial, client: Any) -> Any:
    uid = best.user_attrs["trial_uid"]
    run_id = context.delivery.run_id(uid)
    return client.get_run(run_id)


def _describe(
    best: FrozenTrial, metrics: dict[str, float], fitted: Refit, context: StudyContext
) -> str:
    """What a reader of the registry must know, in Markdown."""
    objective = context.config.objective
    patient = metrics.get(f"patient/{objective}")
    demo = "**SYNTHETIC DEMO DATA: of no use on tissue.**\n\n" if context.is_demo else ""
    return (
        f"{demo}{fitted.candidate.architecture}, trial {best.number} of {context.name}, refitted on"
        f" all {len(context.split.development)} development images."
        f"\n\n* out-of-fold {objective} (images): {best.value:.4f}"
        + (f"\n* out-of-fold {objective} (patients): {patient:.4f}" if patient is not None else "")
        + f"\n* protocol: {protocol_in_words(context)}"
        + "".join(f"\n* {note}" for note in context.split.notes)
        + "\n\nThe sealed test has not been opened for it. Not a medical device."
    )
