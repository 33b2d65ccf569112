"""The part of ``run`` that finds all that can be wrong, before anything heavy is imported."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import optuna

from breakhis_search.config import StudyConfig
from breakhis_search.data.catalog import Catalog, read_catalog
from breakhis_search.data.splits import Split
from breakhis_search.errors import StudyError, WeightsError
from breakhis_search.models.weights import ResolvedWeights, require_weights_folder, resolve_weights
from breakhis_search.settings import Settings
from breakhis_search.study.budget import budget_in_words
from breakhis_search.study.identity import study_digest
from breakhis_search.study.progress import SearchObserver, SilentObserver
from breakhis_search.study.storage import StudyVersion, find_version, open_storage, open_study
from breakhis_search.study.strategy import build_pruner, build_sampler
from breakhis_search.study_file import SHIPPED_STUDIES
from breakhis_search.tracking.store import open_store
from breakhis_search.workflow.own_code import check_own_code, code_digests
from breakhis_search.workflow.request import (
    ResolvedRequest,
    RunRequest,
    architectures_of,
    resolve_request,
)
from breakhis_search.workflow.splitting import split_catalog

JOIN_PATIENCE_S = 300.0
"""How long to wait for a run that leads: it may have started later, and reads its images first."""

_LOOK_EVERY_S = 1.0

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Watcher:
    """Whoever watches a run.

    Attributes:
        say: Called with sentences.
        progress: Called with (what, done, in all) while data is prepared.
        search: Sees trials and epochs.
        confirm_slow: Asked whether a run on a CPU may start that may take so many hours, and how
            that was found; ``None`` where nobody needs to be asked.
        opened: Told when there is a study to join.
    """

    say: Say = lambda _: None
    progress: Progress = lambda *_: None
    search: SearchObserver = field(default_factory=SilentObserver)
    confirm_slow: Callable[[float, str], None] | None = None
    opened: Callable[[StudyVersion], None] = lambda _: None


@dataclass(frozen=True)
class PreparedRun:
    """A run that nothing is known to be wrong with.

    Attributes:
        request: As typed.
        resolved: Data chosen and study checked.
        settings: Where things are.
        catalog: The usable images.
        split: Who is trained, validated and sealed.
        weights: Pretrained weights by architecture, on disk.
        storage: Of Optuna's studies.
        version: Which study it is; a new one is not created before it may start.
    """

    request: RunRequest
    resolved: ResolvedRequest
    settings: Settings
    catalog: Catalog
    split: Split
    weights: dict[str, ResolvedWeights]
    storage: optuna.storages.BaseStorage
    version: StudyVersion

    @cached_property
    def client(self) -> Any:
        """MLflow client, opened when it is first asked for: who only trains needs none.

        Raises:
            TrackingError: MLflow does not answer.
        """
        return open_store(self.settings)

    def open_study(self) -> optuna.Study:
        """Return the Optuna study, created if it is new."""
        config = self.resolved.config
        study = open_study(
            self.storage,
            self.version,
            objective=config.objective,
            sampler=optuna.samplers.RandomSampler(seed=0),  # replaced, once the size is known
            pruner=build_pruner(config),
        )
        study.sampler = build_sampler(config, finished=len(study.get_trials(deepcopy=False)))
        return study


def prepare_run(
    request: RunRequest,
    settings: Settings,
    watcher: Watcher,
    *,
    version: StudyVersion | None = None,
    leads: bool = True,
    replayed: str | None = None,
) -> PreparedRun:
    """Check study file, data, split, weights and stores, in this order, and find the study.

    Args:
        request: As typed.
        settings: Where things are.
        watcher: Told what is found.
        version: The study to join, where another process has found it; nothing is said then.
        leads: Whether another version of a study may be begun beside those that are there.
        replayed: Architecture of the one trial that is trained again: no other is needed, and no
            study is looked for.

    Raises:
        BreakhisSearchError: The first thing that is wrong, with its remedy.
    """
    joins = version is not None
    if joins:
        watcher = replace(watcher, say=lambda _: None, progress=lambda *_: None)
    resolved = resolve_request(request, settings)
    if resolved.data.is_demo:
        watcher.say("SYNTHETIC DEMO: it shows the way, not a result")
    else:
        watcher.say(f"data: {resolved.data.folder} ({resolved.data.source})")
    if resolved.file.is_relative_to(SHIPPED_STUDIES):
        watcher.say(f"study file: {resolved.file} (copy it to experiments/ to change it)")
    config = resolved.config
    check_own_code(config)
    catalog = _catalog(resolved, settings, watcher)
    split = split_catalog(catalog, config, folder=resolved.data.folder)
    for note in split.notes:
        watcher.say(note)
    needed = architectures_of(config) if replayed is None else (replayed,)
    weights = _weights(needed, resolved, request, settings)
    storage = open_storage(settings.studies_uri)
    if replayed is None:
        digest = _identity(config, catalog, split, weights, settings)
        found = (
            _led_by_another(storage, resolved, digest, watcher)
            if version is None and not leads
            else _find_study(storage, resolved, version, digest=digest, fresh=request.new)
        )
    else:
        found = StudyVersion(resolved.study_name, "", is_new=False, earlier=())
    run = PreparedRun(request, resolved, settings, catalog, split, weights, storage, found)
    if not joins:
        _ = run.client  # a store that nobody can reach is told before anything is trained
    if not joins and replayed is None:
        _announce(run, watcher)
    return run


def _catalog(resolved: ResolvedRequest, settings: Settings, watcher: Watcher) -> Catalog:
    catalog = read_catalog(
        resolved.data.folder,
        cache_dir=settings.cache_dir,
        progress=lambda done, total: watcher.progress("checking images", done, total),
    )
    return catalog.require_usable(resolved.config.data.on_bad_image)


def _weights(
    architectures: Sequence[str], resolved: ResolvedRequest, request: RunRequest, settings: Settings
) -> dict[str, ResolvedWeights]:
    source = resolved.config.model.weights
    if request.weights_dir is not None:
        require_weights_folder(request.weights_dir)
    found: dict[str, ResolvedWeights] = {}
    errors: dict[str, WeightsError] = {}
    for name in architectures:
        try:
            found[name] = resolve_weights(
                name, source=source, weights_dir=request.weights_dir, keras_home=settings.keras_home
            )
        except WeightsError as error:
            errors[name] = error
            if request.weights_dir is None:  # without a network each would wait for nothing
                break
    if errors:
        raise _no_weights(errors, list(found))
    return found


def _no_weights(errors: Mapping[str, WeightsError], usable: Sequence[str]) -> WeightsError:
    """The error about every architecture whose weights cannot be used, with the first in full."""
    first, *others = errors.values()
    if not others:
        return first
    narrow = f"--set 'space.model/architecture=[{', '.join(usable)}]'"
    return WeightsError(
        f"{first.what}; the same goes for {', '.join(list(errors)[1:])}",
        expected=first.expected,
        received=first.received,
        remedy=f"search only what there are weights for: {narrow}; or: {first.remedy}"
        if usable
        else first.remedy,
    )


def _identity(
    config: StudyConfig,
    catalog: Catalog,
    split: Split,
    weights: dict[str, ResolvedWeights],
    settings: Settings,
) -> str:
    return study_digest(
        config,
        data_fingerprint=catalog.fingerprint,
        split_digest=split.digest,
        weights={name: found.sha256 for name, found in weights.items()},
        own_code=code_digests(config, settings.home),
    )


def _find_study(
    storage: optuna.storages.BaseStorage,
    resolved: ResolvedRequest,
    joined: StudyVersion | None,
    *,
    digest: str,
    fresh: bool,
) -> StudyVersion:
    if joined is None:
        return find_version(storage, resolved.study_name, digest=digest, fresh=fresh)
    if joined.digest != digest:
        raise StudyError(
            f"{joined.name} cannot be joined: data, weights, study file or code that it names have"
            " changed since",
            remedy="run the same command again",
        )
    return replace(joined, is_new=False)


def _led_by_another(
    storage: optuna.storages.BaseStorage, resolved: ResolvedRequest, digest: str, watcher: Watcher
) -> StudyVersion:
    """The study that another run leads, or will in a moment: both may have been started at once.

    Raises:
        StudyError: There are only studies of that name which this one is not.
    """
    until = time.monotonic() + JOIN_PATIENCE_S
    is_told = False
    while True:
        found = find_version(storage, resolved.study_name, digest=digest, fresh=False)
        if not (found.is_new and found.earlier):
            return found
        if time.monotonic() > until:
            raise StudyError(
                f"nobody leads {resolved.study_name} with these data, split, weights, study file"
                f" and code; there is {', '.join(found.earlier)}",
                expected="the same of all of them as where it is led",
                remedy="compare what `data check` and `doctor` say on both machines",
            )
        if not is_told:
            watcher.say(f"waiting for the run that leads: this is not {found.earlier[-1]}")
            is_told = True
        time.sleep(_LOOK_EVERY_S)


def _announce(run: PreparedRun, watcher: Watcher) -> None:
    version = run.version
    if not version.is_new:
        trials = run.open_study().get_trials(deepcopy=False)
        budget = run.resolved.config.search.trials
        watcher.say(f"continuing {version.name}: {budget_in_words(trials, budget=budget)}")
    elif version.earlier and not run.request.new:
        watcher.say(
            f"new study {version.name}: data, split, protocol, weights, space, training or code of"
            f" your own differ from {version.earlier[-1]}"
        )
    else:
        watcher.say(f"new study {version.name}")
