"""``run``: from a prepared run to a registered model. Loads Keras."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import optuna

from breakhis_search.data.cache import open_image_cache
from breakhis_search.data.leaks import check_development_only
from breakhis_search.data.official import leaks_in_words
from breakhis_search.data.protocol import Split
from breakhis_search.data.taxonomy import formulation
from breakhis_search.errors import TrackingError
from breakhis_search.study.batch_sizes import KeptWithStudy
from breakhis_search.study.budget import UID
from breakhis_search.study.checkpoints import CheckpointFiles
from breakhis_search.study.context import StudyContext
from breakhis_search.study.estimate import estimate_hours
from breakhis_search.study.finalists import (
    ended_finalists,
    forget_failed_finalists,
    note_end,
    run_finalists,
)
from breakhis_search.study.leases import Leases, lead_of
from breakhis_search.study.liveness import cut_off_trials
from breakhis_search.study.report import make_report
from breakhis_search.study.storage import RUN_UID, storage_errors
from breakhis_search.study.twins import waits
from breakhis_search.study.worker import WorkerLimits, run_search
from breakhis_search.tracking import keys
from breakhis_search.tracking.courier import Carrier, Courier
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journals import end_left_behind
from breakhis_search.tracking.provenance import provenance_tags
from breakhis_search.training.devices import Device, prepare_device
from breakhis_search.wording import counted
from breakhis_search.workflow.outcome import RunOutcome
from breakhis_search.workflow.parent_run import begin_parent, describe_end
from breakhis_search.workflow.preparation import PreparedRun, Watcher
from breakhis_search.workflow.registration import ended_refits, refit_and_register
from breakhis_search.workflow.request import architectures_of
from breakhis_search.workflow.sealed import sealed_images
from breakhis_search.workflow.selection import select_winner

_LOOK_EVERY_S = 1.0


def search_and_register(
    run: PreparedRun,
    watcher: Watcher,
    carrier: Carrier | None = None,
    *,
    leads: bool = True,
    limits: WorkerLimits | None = None,
) -> RunOutcome | None:
    """Search, select, refit, verify and register; running it again continues.

    Args:
        run: From :func:`prepare_run`.
        watcher: Whoever watches.
        carrier: Brings records to MLflow; without one a process for it is started here.
        leads: Whether to select and register; who does not trains what there is to train.
        limits: How long this process may go on.

    Returns:
        What the study came to; ``None`` where another process leads it.

    Raises:
        WorkerIsTired: The limits are reached, and there is still something to do.
    """
    with storage_errors(run.settings.studies_uri):
        leases = Leases(run.settings.studies_uri)
    with closing(carrier or _carrier(run, watcher)) as carries, closing(leases):
        context = study_context(run, watcher, carries, leases)
        if context.device.kind == "cpu" and run.resolved.profile == "full" and watcher.confirm_slow:
            watcher.say("estimating how long the full profile takes on this CPU …")
            watcher.confirm_slow(*estimate_hours(context))  # who declines leaves no study behind
        with storage_errors(run.settings.studies_uri):
            study, uid = open_once(run.open_study, run.version.name, leases)
            context = _identified(context, study, uid)
            watcher.opened(run.version)
            search = _Search(study, context, run, watcher, limits or WorkerLimits())
            if leads:
                return search.lead_in_turn()
            search.take_part()
            if carrier is None:  # else whoever carries sees to it
                carries.flush()
            return None


def _carrier(run: PreparedRun, watcher: Watcher) -> Carrier:
    delivery = Delivery(run.client, run.settings, make_report, complain=watcher.say)
    if run.settings.delivers_in_background:
        return Courier(run.settings, make_report, delivery=delivery, say=watcher.say)
    return delivery


def study_context(
    run: PreparedRun, watcher: Watcher, carrier: Carrier, leases: Leases
) -> StudyContext:
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
    start = time.perf_counter()
    images = _images(split, run, watcher)
    startup = {"import": device.seconds, "data": time.perf_counter() - start}
    return StudyContext(
        config=config,
        space=config.space,
        split=split,
        root=run.catalog.root,
        images=images,
        architectures=architectures_of(config),
        weights=run.weights,
        device=device,
        settings=run.settings,
        delivery=carrier,
        leases=leases,
        checkpoints=CheckpointFiles(run.settings.checkpoints),
        name=run.version.name,
        uid="",
        experiment=keys.experiment_name(config.task, demo=run.resolved.data.is_demo),
        tags=_tags(run, device),
        observer=watcher.search,
        startup=startup,
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


def open_once(
    open_study: Callable[[], optuna.Study], name: str, leases: Leases
) -> tuple[optuna.Study, str]:
    """Open a study and return it with the identity of its own run, which is kept with it.

    One process after the other: of two that begin a study at once, both get the same identity.

    Args:
        open_study: Opens the study, or makes it.
        name: Of the study.
        leases: Of this process.
    """
    with leases.exclusively(f"open/{name}"):
        study = open_study()
        if RUN_UID not in study.user_attrs:
            study.set_user_attr(RUN_UID, uuid.uuid4().hex)
        return study, str(study.user_attrs[RUN_UID])


def _identified(context: StudyContext, study: optuna.Study, uid: str) -> StudyContext:
    return replace(
        context,
        uid=uid,
        tags={**context.tags, keys.STUDY_UID: uid},
        batch_sizes=KeptWithStudy(study),
    )


def _tags(run: PreparedRun, device: Device) -> dict[str, str]:
    """What every run of the study is tagged with."""
    config = run.resolved.config
    seen = run.split.development_only().table
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
        **_weights_folder(run),
        keys.DATA_FINGERPRINT: run.catalog.fingerprint,
        keys.SPLIT_DIGEST: run.split.digest,
        keys.IMAGES: str(len(seen)),
        keys.PATIENTS: str(seen["accession"].nunique()),
        **_sealed_test(run),
        keys.PROFILE: run.resolved.profile or "none",
        keys.DEVICE: f"{device.kind}: {device.name}",
        keys.PRECISION: device.precision,
        keys.THREADS: str(device.threads),
    }


def _weights_folder(run: PreparedRun) -> dict[str, str]:
    """Where pretrained weights are, as a tag; nothing where Keras fetched them."""
    folder = run.request.weights_dir
    return {keys.WEIGHTS_FOLDER: str(folder.resolve())} if folder else {}


def _sealed_test(run: PreparedRun) -> dict[str, str]:
    """What the sealed test is, or why there is none, as tags."""
    config, sealed = run.resolved.config, run.split.sealed
    images = (
        sealed_images(run.catalog, config.task, config.magnification) if sealed.groups else None
    )
    if images is None:
        return {keys.SEALED_TEST: sealed.absent_because or f"{len(sealed.groups)} patients"}
    return {keys.SEALED_DIGEST: images.digest, keys.SEALED_TEST: images.patients_in_words()}


def _official_leaks(run: PreparedRun) -> dict[str, str]:
    """The patients that the official tests leak, as a tag; nothing for other protocols."""
    leaks = leaks_in_words(run.split)
    return {keys.OFFICIAL_LEAKS: leaks} if leaks else {}


@dataclass(frozen=True)
class _Search:
    """A study and who is at it, from here to its end.

    Attributes:
        study: The Optuna study.
        context: The study.
        run: As prepared.
        watcher: Whoever watches.
        limits: How long this process may go on.
    """

    study: optuna.Study
    context: StudyContext
    run: PreparedRun
    watcher: Watcher
    limits: WorkerLimits

    def take_part(self) -> None:
        """Train what there is to train, and leave the rest to who leads."""
        _have_left_behind_delivered(self.context, self.watcher)
        # Who leads has the study's seed; with it again the same values would be proposed twice.
        self.study.sampler.reseed_rng()
        run_search(self.study, self.context, self.limits)
        run_finalists(self.study, self.context, self.watcher.say)

    def lead_in_turn(self) -> RunOutcome:
        """Take part, and lead the study to its end as soon as no other living process does."""
        leases, lead = self.context.leases, lead_of(self.context.uid)
        if not leases.take(lead):
            self.watcher.say(f"joining {self.context.name}, which another process leads")
            self.take_part()
            self.watcher.say("waiting for the process that leads to select and register")
            while not leases.take(lead):
                time.sleep(_LOOK_EVERY_S)
        try:
            return self._lead()
        finally:
            leases.release(lead)

    def _lead(self) -> RunOutcome:
        study, context, run, watcher = self.study, self.context, self.run, self.watcher
        parent = begin_parent(context)
        try:
            context.delivery.deliver(parent)  # first: its trials name it
            _tidy_up(study, context, watcher)
            self._sweep()
            run_search(study, context, self.limits)
            winner = select_winner(study, context, run.client, parent, watcher.say)
            first = context.split.development[0]
            example = run.catalog.root / context.split.table["path"].iloc[first]
            registered, reason = (
                refit_and_register(study, winner, context, run.client, example, watcher.say)
                if winner
                else (None, "no trial is complete")
            )
            self._sweep()
        except BaseException:  # Ctrl-C too
            # Nobody waits for a store that may be what failed; the next run delivers the rest.
            with suppress(TrackingError):  # the reason is on its way already
                parent.finish("KILLED")
                context.delivery.deliver(parent)
            raise
        trials = study.get_trials(deepcopy=False)
        describe_end(parent, context, trials, winner, registered, reason)
        note_end(study, context.config.finalists)
        parent.finish("FINISHED")
        context.delivery.deliver(parent)
        context.delivery.flush()
        return RunOutcome(
            study=context.name,
            objective=context.config.objective,
            is_demo=run.resolved.data.is_demo,
            registered=registered,
            not_registered=reason,
            example=str(example),
        )

    def _sweep(self) -> None:
        """Delete what is left of work that has ended, by processes that were killed just then."""
        trials = self.study.get_trials(deepcopy=False)
        ended = {str(t.user_attrs.get(UID)) for t in trials if t.state.is_finished()}
        ended |= ended_finalists(self.study) | ended_refits(self.study)
        self.context.checkpoints.sweep(ended)


def _tidy_up(study: optuna.Study, context: StudyContext, watcher: Watcher) -> None:
    """Say what interrupted runs left behind, and have what they recorded brought to MLflow."""
    forget_failed_finalists(study)
    trials = study.get_trials(deepcopy=False)
    left = [n for n in cut_off_trials(trials, context.leases) if not waits(trials[n], trials)]
    if left:
        numbers = ", ".join(map(str, left))
        watcher.say(
            f"trial {numbers} had been cut off; it goes on where it was"
            if len(left) == 1
            else f"trials {numbers} had been cut off; they go on where they were"
        )
    _have_left_behind_delivered(context, watcher)


def _have_left_behind_delivered(context: StudyContext, watcher: Watcher) -> None:
    """End the journals of dead processes in this folder, and have them delivered while we train."""
    waiting = end_left_behind(context.settings.journal_dir)
    for journal in waiting:
        context.delivery.deliver(journal)
    if waiting:
        watcher.say(
            f"bringing to MLflow what it lacks of {counted(len(waiting), 'run')} in this folder"
        )
