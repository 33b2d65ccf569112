"""Who was champion when, and why: kept in MLflow's registry, changed by one process at a time."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from mlflow.exceptions import MlflowException

from breakhis_search.comparison.registry_lock import registry_lock
from breakhis_search.errors import RegistryError
from breakhis_search.tracking import keys

CHAMPION = "champion"
CHALLENGER = "challenger"

_PENDING = "pending"


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
        rules: What the gate asked for, as JSON of :class:`.gate.GateRules`; empty where it was not
            asked, or insisted against.
    """

    version: str
    previous: str | None
    action: Literal["registered", "promoted", "forced", "rolled back"]
    when: str
    why: str
    scores: Mapping[str, float] = field(default_factory=dict)
    rules: str = ""


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
    """Return all recorded moves of ``champion``, oldest first; empty without such a model.

    A move is written down before the alias is moved, as pending. What a crash left pending counts
    if the alias points at its version, and never happened if it does not.
    """
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    return [change for _, change in _moves(model)]


def _moves(model: Any) -> list[tuple[str, ChampionChange]]:
    """Every move that took place, with its tag, oldest first."""
    tags = sorted((k, v) for k, v in model.tags.items() if k.startswith(keys.CHAMPION_CHANGE))
    moves = []
    for key, text in tags:
        entry = json.loads(text)
        if entry.pop(_PENDING, False) and str(model.aliases.get(CHAMPION)) != entry["version"]:
            continue
        moves.append((key, ChampionChange(**entry)))
    return moves


def change_champion(
    client: Any,
    name: str,
    version: str,
    *,
    instead_of: str | None,
    action: Literal["registered", "promoted", "forced", "rolled back"],
    why: str,
    scores: Mapping[str, float] | None = None,
    rules: str = "",
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
        rules: What the gate asked for, as JSON.

    Raises:
        RegistryError: Somebody else moved it meanwhile, or is moving it.
    """
    with registry_lock(client, name) as still_in:
        _settle(client, name)
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
        change = ChampionChange(version, present, action, now, why, dict(scores or {}), rules)
        key = _next_key(client, name)
        _write(client, name, key, change, pending=True)
        still_in()
        client.set_registered_model_alias(name, CHAMPION, version)
        _write(client, name, key, change, pending=False)
    return change


def _settle(client: Any, name: str) -> None:
    """Complete or delete the move that a crash left half-written."""
    model = client.get_registered_model(name)
    done = dict(_moves(model))
    for key, text in model.tags.items():
        if key.startswith(keys.CHAMPION_CHANGE) and json.loads(text).get(_PENDING):
            if key in done:
                _write(client, name, key, done[key], pending=False)
            else:
                client.delete_registered_model_tag(name, key)


def _next_key(client: Any, name: str) -> str:
    """A tag that sorts after all moves and that no other process chooses."""
    moves = _moves(client.get_registered_model(name))
    last = moves[-1][0].removeprefix(keys.CHAMPION_CHANGE)[:4] if moves else "0"
    return f"{keys.CHAMPION_CHANGE}{int(last) + 1:04d}-{uuid.uuid4().hex[:8]}"


def _write(client: Any, name: str, key: str, change: ChampionChange, *, pending: bool) -> None:
    entry = asdict(change) | ({_PENDING: True} if pending else {})
    client.set_registered_model_tag(name, key, json.dumps(entry))


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
