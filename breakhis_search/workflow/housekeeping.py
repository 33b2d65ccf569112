"""``status --gc``: what takes room on the disk, and which of it nobody will miss.

A search keeps the model of a trial that is among its best when it ends; later ones beat it. Such
models may go: their scores, predictions and pages stay, and ``replay`` trains them again. Models of
finalists, refits and registered versions are never touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from breakhis_search.comparison.evidence import read_text
from breakhis_search.config import SearchConfig
from breakhis_search.settings import Settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.store import open_store, tracking_errors
from breakhis_search.tracking.stored_runs import read_runs

_PAGE = 100


@dataclass(frozen=True)
class BeatenModel:
    """The model of a search trial that better ones have beaten.

    Attributes:
        model_id: In MLflow.
        study: Full study name.
        trial: Its number.
        score: Its pooled out-of-fold objective.
        folder: Where its files are; ``None`` where a server keeps them.
        size: Of its files, in bytes; 0 where a server keeps them.
    """

    model_id: str
    study: str
    trial: int
    score: float
    folder: Path | None
    size: int


def find_beaten_models(settings: Settings, *, keep: int | None) -> list[BeatenModel]:
    """Return the models that are not among the best of their study, the largest first.

    Args:
        settings: Where things are.
        keep: So many models of each study stay, those of its best trials; ``None`` for as many as
            its study file says (``search.models_kept``).

    Raises:
        TrackingError: MLflow refuses.
    """
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        by_study: dict[str, list[BeatenModel]] = {}
        for study_uid, model in _models_of_trials(client):
            by_study.setdefault(study_uid, []).append(model)
        kept = {uid: _models_kept(client, uid) if keep is None else keep for uid in by_study}
    beaten = []
    for uid, models in by_study.items():
        beaten += sorted(models, key=lambda m: (-m.score, m.trial))[kept[uid] :]
    return sorted(beaten, key=lambda m: -m.size)


def _models_kept(client: Any, study_uid: str) -> int:
    """How many models a study keeps, as its run in MLflow says."""
    runs = read_runs(client, {keys.ROLE: keys.ROLE_STUDY, keys.STUDY_UID: study_uid}, metrics=())
    text = read_text(client, runs[0].run_id, keys.ARTIFACT_CONFIG) if runs else ""
    search = (yaml.safe_load(text) or {}).get("search", {}) if text else {}
    return int(search.get("models_kept", SearchConfig().models_kept))


def _models_of_trials(client: Any) -> Iterator[tuple[str, BeatenModel]]:
    """Every model of a search trial, with the uid of its study."""
    registered = {str(v.source).removeprefix("models:/") for v in client.search_model_versions()}
    for model in _logged_models(client):
        run = client.get_run(model.source_run_id)
        tags = run.data.tags
        if tags.get(keys.ROLE) != keys.ROLE_TRIAL or model.model_id in registered:
            continue
        folder = _local_folder(model.artifact_location)
        yield (
            tags.get(keys.STUDY_UID, tags[keys.STUDY]),
            BeatenModel(
                model.model_id,
                tags[keys.STUDY],
                int(tags[keys.TRIAL_NUMBER]),
                _score(run.data.metrics),
                folder,
                bytes_in(folder) if folder else 0,
            ),
        )


def _logged_models(client: Any) -> Iterator[Any]:
    """The models of folds in all experiments of this program."""
    known = client.search_experiments(filter_string="name LIKE 'breakhis-%'")
    ids = [experiment.experiment_id for experiment in known]
    token = None
    while ids:
        page = client.search_logged_models(
            ids, filter_string=f"tags.`{keys.ROLE}` = 'fold'", max_results=_PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _score(metrics: Mapping[str, float]) -> float:
    """The objective of a run; a run without one (it was cut off) is beaten by all."""
    scores = [v for k, v in metrics.items() if k.startswith(f"{keys.METRIC_OBJECTIVE}/")]
    return scores[0] if scores else float("-inf")


def _local_folder(location: str) -> Path | None:
    """Where files are on this machine, if they are."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def delete_model(settings: Settings, model: BeatenModel) -> None:
    """Delete a model: its files, if they are here, then what MLflow says of it.

    In this order, so that what is cut off half-way is found and finished the next time.

    Raises:
        TrackingError: MLflow or the disk refuses.
    """
    client = open_store(settings)
    with tracking_errors(settings.tracking_uri):
        if model.folder is not None and model.folder.is_dir():
            shutil.rmtree(model.folder)
        client.delete_logged_model(model.model_id)


def room_taken(settings: Settings) -> dict[str, int]:
    """Return the bytes below every folder of ours, by what they are."""
    places = {
        "runs: pages, predictions, models": settings.artifacts_dir,
        "journals": settings.journal_dir,
        "checkpoints": settings.checkpoints,
        "reports": settings.state_dir / "reports",
        "caches: images, features (bounded by themselves)": settings.cache_dir,
    }
    return {what: bytes_in(place) for what, place in places.items() if place.is_dir()}


def bytes_in(folder: Path) -> int:
    """Return the size of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).lstat().st_size
    return total
