"""``run``: from a prepared run to a registered model. Loads Keras."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from breakhis_search.comparison.registry import Registered
from breakhis_search.data.cache import open_image_cache
from breakhis_search.data.leaks import check_development_only
from breakhis_search.data.official import leaks_in_words
from breakhis_search.data.protocol import Split
from breakhis_search.data.taxonomy import formulation
from breakhis_search.study.batch_sizes import KeptWithStudy
from breakhis_search.study.claims import settle_dead_claims
from breakhis_search.study.context import StudyContext
from breakhis_search.study.records import protocol_in_words
from breakhis_search.study.report import make_report
from breakhis_search.study.storage import storage_errors
from breakhis_search.study.worker import run_search, settle_dead_trials
from breakhis_search.tracking import keys
from breakhis_search.tracking.courier import Carrier, Courier
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.provenance import provenance_tags
from breakhis_search.training.devices import Device, prepare_device
from breakhis_search.workflow.preparation import PreparedRun, Watcher
from breakhis_search.workflow.registration import refit_and_register
from breakhis_search.workflow.request import architectures_of
from breakhis_search.workflow.sealed import sealed_images
from breakhis_search.workflow.selection import select_winner


@dataclass(frozen=True)
class RunOutcome:
    """What a run ends with.

    Attributes:
        study: Full study name.
        objective: Name of the objective.
        is_demo: Whether all of it is synthetic.
        finished: Trials this run finished.
        client: MLflow client, to read the leaderboard with.
        registered: The registered version; ``None`` when there is nothing to register.
        not_registered: Why not, in words.
        example: An image file to try the model on.
    """

    study: str
    objective: str
    is_demo: bool
    finished: int
    client: Any
    registered: Registered | None
    not_registered: str | None
    example: str


def search_and_register(run: PreparedRun, watcher: Watcher) -> RunOutcome:
    """Search, select, refit, verify and register; running it again continues."""
    delivery = Delivery(run.client, run.settings, make_report)
    with closing(_carrier(delivery, run)) as carrier:
        return _run(run, watcher, delivery, carrier)


def _carrier(delivery: Delivery, run: PreparedRun) -> Carrier:
    if run.settings.delivers_in_background:
        return Courier(delivery, run.settings, make_report)
    return delivery


def _run(run: PreparedRun, watcher: Watcher, delivery: Delivery, carrier: Carrier) -> RunOutcome:
    context = _context(run, watcher, carrier)
    if context.device.kind == "cpu" and run.resolved.profile == "full":
        watcher.confirm_slow(context)  # who declines leaves no study behind
    with storage_errors(run.settings.studies_uri):
        study = run.open_study()
        context = _identified(context, study)
        return _search_and_register(context, study, run, watcher, delivery)


def _context(run: PreparedRun, watcher: Watcher, carrier: Carrier) -> StudyContext:
    """Everything trials share but the study's uid; from here on Keras is loaded."""
    config = run.resolved.config
    device = prepare_device(
        run.request.device,
        mixed_precision=config.training.mixed_precision == "auto",
        deterministic=config.training.deterministic,
        compilations=run.settings.cache_dir / "compilations",
    )
    watcher.say(f"training on {device.kind} ({device.name}), {device.precision}")
    split = run.split.development_only()
    return StudyContext(
        config=config,
        space=config.space,
        split=split,
        images=_images(split, run, watcher),
        architectures=architectures_of(config),
        weights=run.weights,
        device=device,
        settings=run.settings,
        delivery=carrier,
        name=run.version.name,
        uid="",
        experiment=keys.experiment_name(config.task, demo=run.resolved.data.is_demo),
        tags=_tags(run, device),
        observer=watcher.search,
    )


def _images(split: Split, run: PreparedRun, watcher: Watcher) -> npt.NDArray[np.uint8]:
    """The images of a search: not one of a sealed patient is read."""
    table, size = split.table, run.resolved.config.data
    check_development_only(table, split.sealed)
    return open_image_cache(
        run.catalog.root,
        table["path"].tolist(),
        table["sha256"].tolist(),
        height_px=size.height_px,
        width_px=size.width_px,
        cache_dir=run.settings.cache_dir,
        progress=lambda done, total: watcher.progress("decoding images", done, total),
    )


def _identified(context: StudyContext, study: optuna.Study) -> StudyContext:
    """The context with the identity of the study's own run, which is kept with the study."""
    uid = study.user_attrs.get("uid")
    if uid is None:
        uid = uuid.uuid4().hex
        study.set_user_attr("uid", uid)
    return replace(
        context,
        uid=str(uid),
        tags={**context.tags, keys.STUDY_UID: str(uid)},
        batch_sizes=KeptWithStudy(study),
    )


def _tags(run: PreparedRun, device: Device) -> dict[str, str]:
    """What every run of the study is tagged with."""
    config, sealed = run.resolved.config, run.split.sealed
    return {
        **provenance_tags(),
        keys.STUDY: run.version.name,
        keys.TASK: config.task,
        keys.OBJECTIVE: config.objective,
        keys.PROTOCOL: config.protocol.kind,
        keys.FORMULATION: formulation(config.task, config.magnification),
        **_official_leaks(run),
        keys.SPLIT_NOTES: json.dumps(list(run.split.notes)),
        keys.LEAKY: str(config.protocol.leaks).lower(),
        keys.DEMO: str(run.resolved.data.is_demo).lower(),
        keys.MAGNIFICATION: str(config.data.magnification),
        keys.DATA_FOLDER: str(run.resolved.data.folder),
        keys.DATA_FINGERPRINT: run.catalog.fingerprint,
        keys.SPLIT_DIGEST: run.split.digest,
        **_sealed_digest(run),
        keys.SEALED_TEST: sealed.absent_because or f"{len(sealed.groups)} patients",
        keys.PROFILE: run.resolved.profile or "none",
        keys.DEVICE: f"{device.kind}: {device.name}",
        keys.PRECISION: device.precision,
    }


def _sealed_digest(run: PreparedRun) -> dict[str, str]:
    """What the sealed test is, as a tag; nothing where the study has none."""
    config = run.resolved.config
    if not run.split.sealed.groups:
        return {}
    images = sealed_images(run.catalog, config.task, config.magnification)
    return {keys.SEALED_DIGEST: images.digest} if images else {}


def _official_leaks(run: PreparedRun) -> dict[str, str]:
    """The patients that the official tests leak, as a tag; nothing for other protocols."""
    leaks = leaks_in_words(run.split)
    return {keys.OFFICIAL_LEAKS: leaks} if leaks else {}


def _search_and_register(
    context: StudyContext,
    study: optuna.Study,
    run: PreparedRun,
    watcher: Watcher,
    delivery: Delivery,
) -> RunOutcome:
    parent = _begin_parent(context)  # from here on no other process here runs this study
    status = "KILLED"
    try:
        context.delivery.deliver(parent)
        context.delivery.flush()
        _tidy_up(study, context, watcher, delivery)
        finished = run_search(study, context)
        winner = select_winner(study, context, run.client, parent, watcher.say)
        example = run.catalog.root / context.split.table["path"].iloc[context.split.development[0]]
        registered, reason = (
            refit_and_register(study, winner, context, run.client, example, watcher.say)
            if winner
            else (None, "no trial is complete")
        )
        status = "FINISHED"
    finally:
        parent.finish(status)
        context.delivery.deliver(parent)
        context.delivery.flush()
    return RunOutcome(
        study=context.name,
        objective=context.config.objective,
        is_demo=run.resolved.data.is_demo,
        finished=finished,
        client=run.client,
        registered=registered,
        not_registered=reason,
        example=str(example),
    )


def _tidy_up(
    study: optuna.Study, context: StudyContext, watcher: Watcher, delivery: Delivery
) -> None:
    """Bring what interrupted runs left behind to its end, in Optuna and in MLflow."""
    for what in settle_dead_claims(study, context):
        watcher.say(f"{what} had been cut off and is done again")
    settled = settle_dead_trials(study, context)
    if settled:
        watcher.say(f"trials {settled} had been cut off; their configurations are queued again")
    waiting = delivery.deliver_all(context.settings.journal_dir)
    if waiting:
        watcher.say(f"delivered what {waiting} interrupted runs had left behind")


def _begin_parent(context: StudyContext) -> Journal:
    """The study's own run, the parent of all its trials."""
    config, split = context.config, context.split
    journal = context.journal(context.uid)
    note = (
        f"**{context.name}**: {config.description or config.task}\n\n"
        f"* data: {len(split.table)} development images"
        + (" (SYNTHETIC DEMO)" if context.is_demo else "")
        + f"\n* protocol: {protocol_in_words(context)}\n* objective: {config.objective}\n"
        + "".join(f"* {note}\n" for note in split.notes)
    )
    tags = {
        **context.tags,
        keys.ROLE: keys.ROLE_STUDY,
        keys.MLFLOW_NOTE: note,
        keys.SELECTION_RULES: config.selection.model_dump_json(),
    }
    journal.begin(name=context.name, tags=tags, parent_uid=None, experiment=context.experiment)
    journal.log_metrics({f"{keys.SECONDS}import": context.device.seconds})
    return journal
