"""``run``: from a request to a registered model."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna

from breakhis_search.comparison.registry import Registered
from breakhis_search.data.cache import open_image_cache
from breakhis_search.data.catalog import Catalog, read_catalog
from breakhis_search.data.splits import Protocol, Split, split_patients
from breakhis_search.models.weights import ResolvedWeights, resolve_weights
from breakhis_search.settings import Settings
from breakhis_search.study.context import StudyContext
from breakhis_search.study.identity import study_digest
from breakhis_search.study.progress import SearchObserver, SilentObserver
from breakhis_search.study.records import protocol_in_words
from breakhis_search.study.storage import OpenedStudy, open_storage, open_study, storage_errors
from breakhis_search.study.worker import (
    build_pruner,
    build_sampler,
    enqueue_first_trials,
    run_search,
    settle_dead_trials,
)
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.provenance import provenance_tags
from breakhis_search.tracking.store import open_store
from breakhis_search.training.devices import prepare_device
from breakhis_search.workflow.registration import refit_and_register
from breakhis_search.workflow.request import (
    ResolvedRequest,
    RunRequest,
    architectures_of,
    resolve_request,
)

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Watcher:
    """Whoever watches a run.

    Attributes:
        say: Called with sentences.
        progress: Called with (what, done, in all) while data is prepared.
        search: Sees trials and epochs.
        confirm_slow: Asked whether an hours-long run on CPU may start; gets the study's context.
    """

    say: Say = lambda _: None
    progress: Progress = lambda *_: None
    search: SearchObserver = field(default_factory=SilentObserver)
    confirm_slow: Callable[[StudyContext], None] = lambda _: None


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


def run_study(request: RunRequest, settings: Settings, watcher: Watcher) -> RunOutcome:
    """Search, select, refit, verify and register; running it again continues.

    Everything that can be wrong with the request is found before the first trial.
    """
    resolved = resolve_request(request, settings)
    catalog = _catalog(resolved, settings, watcher)
    split = split_patients(
        catalog.table,
        resolved.config.task,
        Protocol(**resolved.config.protocol.model_dump()),
        magnification=resolved.config.magnification,
    )
    for note in split.notes:
        watcher.say(note)
    weights = _weights(resolved, request)
    client = open_store(settings)
    storage = open_storage(settings.studies_uri)
    opened = _open_study(storage, resolved, catalog, split, fresh=request.new)
    _announce(opened, watcher)
    context = _context(
        request, resolved, settings, catalog, split, weights, opened, client, watcher
    )
    with storage_errors(settings.studies_uri):
        return _search_and_register(context, opened.study, resolved, catalog, client, watcher)


def _catalog(resolved: ResolvedRequest, settings: Settings, watcher: Watcher) -> Catalog:
    catalog = read_catalog(
        resolved.data.folder,
        cache_dir=settings.cache_dir,
        progress=lambda done, total: watcher.progress("checking images", done, total),
    )
    return catalog.require_usable(resolved.config.data.on_bad_image)


def _weights(resolved: ResolvedRequest, request: RunRequest) -> dict[str, ResolvedWeights]:
    source = resolved.config.model.weights
    return {
        name: resolve_weights(name, source=source, weights_dir=request.weights_dir)
        for name in architectures_of(resolved.config)
    }


def _open_study(
    storage: optuna.storages.BaseStorage,
    resolved: ResolvedRequest,
    catalog: Catalog,
    split: Split,
    *,
    fresh: bool,
) -> OpenedStudy:
    config = resolved.config
    opened = open_study(
        storage,
        resolved.study_name,
        digest=study_digest(
            config, data_fingerprint=catalog.fingerprint, split_digest=split.digest
        ),
        fresh=fresh,
        sampler=optuna.samplers.RandomSampler(seed=0),  # replaced below, once its size is known
        pruner=build_pruner(config),
    )
    opened.study.sampler = build_sampler(config, finished=len(opened.study.get_trials(deepcopy=False)))
    return opened


def _announce(opened: OpenedStudy, watcher: Watcher) -> None:
    trials = len(opened.study.get_trials(deepcopy=False))
    if not opened.is_new:
        watcher.say(f"continuing {opened.name}, which has {trials} trials")
    elif opened.earlier:
        watcher.say(
            f"new study {opened.name}: data, split, protocol, space or training differ from"
            f" {opened.earlier[-1]}"
        )
    else:
        watcher.say(f"new study {opened.name}")


def _context(
    request: RunRequest,
    resolved: ResolvedRequest,
    settings: Settings,
    catalog: Catalog,
    split: Split,
    weights: dict[str, ResolvedWeights],
    opened: OpenedStudy,
    client: Any,
    watcher: Watcher,
) -> StudyContext:
    config = resolved.config
    images = open_image_cache(
        catalog.root,
        split.table["path"].tolist(),
        split.table["sha256"].tolist(),
        height_px=config.data.height_px,
        width_px=config.data.width_px,
        cache_dir=settings.cache_dir,
        progress=lambda done, total: watcher.progress("decoding images", done, total),
    )
    watcher.say("starting Keras …")
    device = prepare_device(
        request.device,
        mixed_precision=config.training.mixed_precision == "auto",
        deterministic=config.training.deterministic,
    )
    watcher.say(f"training on {device.kind} ({device.name}), {device.precision}")
    uid = opened.study.user_attrs.get("uid")
    if uid is None:
        uid = uuid.uuid4().hex
        opened.study.set_user_attr("uid", uid)
    context = StudyContext(
        config=config,
        split=split,
        images=images,
        architectures=architectures_of(config),
        weights=weights,
        device=device,
        settings=settings,
        delivery=Delivery(client, settings),
        name=opened.name,
        uid=uid,
        experiment=keys.experiment_name(config.task, demo=resolved.data.is_demo),
        tags={
            **provenance_tags(),
            keys.STUDY: opened.name,
            keys.STUDY_UID: uid,
            keys.TASK: config.task,
            keys.OBJECTIVE: config.objective,
            keys.PROTOCOL: config.protocol.kind,
            keys.LEAKY: str(config.protocol.kind == "image").lower(),
            keys.DEMO: str(resolved.data.is_demo).lower(),
            keys.MAGNIFICATION: str(config.data.magnification),
            keys.DATA_FINGERPRINT: catalog.fingerprint,
            keys.SPLIT_DIGEST: split.digest,
            keys.SEALED_TEST: split.sealed.absent_because or f"{len(split.sealed.groups)} patients",
            keys.PROFILE: resolved.profile or "none",
            keys.DEVICE: f"{device.kind}: {device.name}",
            keys.PRECISION: device.precision,
        },
        observer=watcher.search,
    )
    if device.kind == "cpu" and resolved.profile == "full":
        watcher.confirm_slow(context)
    return context


def _search_and_register(
    context: StudyContext,
    study: optuna.Study,
    resolved: ResolvedRequest,
    catalog: Catalog,
    client: Any,
    watcher: Watcher,
) -> RunOutcome:
    waiting = context.delivery.deliver_all(context.settings.journal_dir)
    if waiting:
        watcher.say(f"delivered what {waiting} interrupted runs had left behind")
    parent = _begin_parent(context, resolved)
    status = "KILLED"
    try:
        settled = settle_dead_trials(study, context)
        if settled:
            watcher.say(f"trials {settled} had been cut off; their configurations are queued again")
        enqueue_first_trials(study, context.config.enqueue)
        finished = run_search(study, context)
        example = catalog.root / context.split.table["path"].iloc[context.split.development[0]]
        registered, reason = refit_and_register(study, context, client, example, watcher.say)
        status = "FINISHED"
    finally:
        parent.finish(status)
        context.delivery.deliver(parent)
    return RunOutcome(
        study=context.name,
        objective=context.config.objective,
        is_demo=resolved.data.is_demo,
        finished=finished,
        client=client,
        registered=registered,
        not_registered=reason,
        example=str(example),
    )


def _begin_parent(context: StudyContext, resolved: ResolvedRequest) -> Journal:
    """The study's own run, the parent of all its trials."""
    config, split = context.config, context.split
    journal = context.journal(context.uid)
    note = (
        f"**{context.name}**: {config.description or config.task}\n\n"
        f"* data: {len(split.table)} images"
        + (" (SYNTHETIC DEMO)" if resolved.data.is_demo else "")
        + f"\n* protocol: {protocol_in_words(context)}\n* objective: {config.objective}\n"
        + "".join(f"* {note}\n" for note in split.notes)
    )
    tags = {**context.tags, keys.ROLE: "study", keys.MLFLOW_NOTE: note}
    journal.begin(name=context.name, tags=tags, parent_uid=None, experiment=context.experiment)
    context.delivery.deliver(journal)
    return journal
