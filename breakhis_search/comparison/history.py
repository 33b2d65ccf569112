"""Who was champion when, and why: kept in MLflow's registry, changed by one process at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from breakhis_search.errors import RegistryError
from breakhis_search.tracking import keys

CHAMPION = "champion"
CHALLENGER = "challenger"

_LOCK_SUFFIX = ".being-promoted"
_LOCK_LASTS_S = 600
"""It is held for less than a second; an older one was left by a crash. The clocks of two machines
may differ, and MLflow repeats a slow request for minutes."""


@dataclass(frozen=True)
class ChampionChange:
    """One move of the alias ``champion``.

    Attributes:
        version: The version it was moved to.
        previous: The version it was moved from, or ``None``.
        action: ``registered`` (there was none), ``promoted``, ``forced`` or ``rolled back``.
        when: UTC, ISO 8601.
        why: The gate's reasons, in words.
        scores: What was measured, by name.
    """

    version: str
    previous: str | None
    action: Literal["registered", "promoted", "forced", "rolled back"]
    when: str
    why: str
    scores: Mapping[str, float] = field(default_factory=dict)


def champion_of(client: Any, name: str) -> Any | None:
    """Return the model version that is champion, or ``None``."""
    return version_of_alias(client, name, CHAMPION)


def version_of_alias(client: Any, name: str, alias: str) -> Any | None:
    """Return the model version an alias points at, or ``None``."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def read_history(client: Any, name: str) -> list[ChampionChange]:
    """Return all recorded moves of ``champion``, oldest first; empty without such a model."""
    try:
        tags = client.get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    entries = sorted((k, v) for k, v in tags.items() if k.startswith(keys.CHAMPION_CHANGE))
    return [ChampionChange(**json.loads(text)) for _, text in entries]


def openings_of(version: Any) -> list[dict[str, Any]]:
    """Return every recorded opening of the sealed test for a version, oldest first."""
    tags = sorted((k, v) for k, v in version.tags.items() if k.startswith(keys.SEALED_OPENING))
    return [json.loads(text) for _, text in tags]


def change_champion(
    client: Any,
    name: str,
    version: str,
    *,
    instead_of: str | None,
    action: Literal["registered", "promoted", "forced", "rolled back"],
    why: str,
    scores: Mapping[str, float] | None = None,
) -> ChampionChange:
    """Move ``champion`` and write it down; of two at once, the second is refused.

    Args:
        client: An MLflow client.
        name: Registered model.
        version: Who becomes champion.
        instead_of: The champion the decision was made against.
        action: What happened.
        why: The reasons, in words.
        scores: What was measured.

    Raises:
        RegistryError: Somebody else moved it meanwhile, or is moving it.
    """
    with _only_one(client, name):
        champion = champion_of(client, name)
        present = None if champion is None else str(champion.version)
        if present != instead_of:
            raise RegistryError(
                f"the champion of {name} changed while this was being decided",
                expected=f"version {instead_of}" if instead_of else "no champion",
                received=f"version {present}" if present else "no champion",
                remedy="look at `compare --history`, then decide again",
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        change = ChampionChange(version, present, action, now, why, dict(scores or {}))
        number = len(read_history(client, name)) + 1
        client.set_registered_model_alias(name, CHAMPION, version)
        client.set_registered_model_tag(
            name, f"{keys.CHAMPION_CHANGE}{number:04d}", json.dumps(asdict(change))
        )
    return change


def previous_champion(client: Any, name: str) -> str:
    """Return the version that was champion before the present one.

    A rollback undoes the last move that was not undone yet, so that rolling back twice goes two
    champions back instead of to and fro.

    Raises:
        RegistryError: There was none, or the alias was moved by another hand.
    """
    champion = champion_of(client, name)
    if champion is None:
        raise RegistryError(
            f"{name} has no champion to roll back", remedy="promote a version instead"
        )
    undone: list[ChampionChange] = []
    for change in read_history(client, name):
        if change.action == "rolled back" and undone:
            undone.pop()
        else:
            undone.append(change)
    last = undone[-1] if undone else None
    if last is None or last.version != str(champion.version):
        raise RegistryError(
            f"the alias champion of {name} was moved outside this program",
            expected=f"version {last.version}" if last else "a recorded champion",
            received=f"version {champion.version}",
            remedy="name the version: promote --version N",
        )
    if last.previous is None:
        raise RegistryError(
            f"version {champion.version} is the first champion of {name}",
            expected="an earlier champion to go back to",
            remedy="`compare --history` lists all moves",
        )
    return last.previous


@contextmanager
def _only_one(client: Any, name: str) -> Iterator[None]:
    """Let one process at a time in, on every kind of MLflow store.

    MLflow has no compare-and-set, but the name of a registered model is unique in its database: who
    creates the empty model ``….being-promoted`` is in, and removes it at the end.
    """
    lock = name + _LOCK_SUFFIX
    _take(client, lock, name)
    try:
        yield
    finally:
        _remove(client, lock)


def _take(client: Any, lock: str, name: str) -> None:
    for _ in range(2):
        try:
            client.create_registered_model(lock, description="A promotion is being written down.")
        except MlflowException as error:
            # MLflow looks up what was in its way, which may be gone again by then.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
            _remove_if_left_behind(client, lock)
        else:
            return
    raise RegistryError(
        f"another process is moving the champion of {name} at this moment",
        remedy="look at `compare --history`, then decide again",
    )


def _remove_if_left_behind(client: Any, lock: str) -> None:
    try:
        since_ms = client.get_registered_model(lock).creation_timestamp
        if time.time() - since_ms / 1000 > _LOCK_LASTS_S:
            _remove(client, lock)
    except MlflowException as error:  # its holder removed it in between
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _remove(client: Any, lock: str) -> None:
    """Delete a lock; who took it for one left by a crash may have done so already."""
    try:
        client.delete_registered_model(lock)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
