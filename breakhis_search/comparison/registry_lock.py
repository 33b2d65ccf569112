"""One writer at a time of who is champion, on every kind of MLflow store.

MLflow has no compare-and-set. So whoever wants in registers an empty model under a name of its own,
``….being-promoted.<random>``, then looks who else has: it is in when it is alone. Who came later
withdraws and is told, who came first waits for that. Of two at once at least one sees the other,
whatever the order in which the store shows them, so two are never in together. A name nobody else
chooses can be deleted by its owner, or by others when it is old, and nothing else is hit.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.errors import RegistryError

logger = logging.getLogger(__name__)

SUFFIX = ".being-promoted."
LASTS_S = 600
"""A lock is held for less than a second; an older one was left by a crash. The clocks of two
machines may differ, and MLflow repeats a slow request for minutes."""

_PATIENCE_S = 10.0
_LOOK_EVERY_S = 0.05
_REMEDY = "look at `compare --history`, then decide again"


@contextmanager
def registry_lock(client: Any, name: str) -> Iterator[Callable[[], None]]:
    """Let one process at a time in.

    Args:
        client: An MLflow client.
        name: Registered model.

    Yields:
        A function that raises where this process was away for so long that it was taken for dead.

    Raises:
        RegistryError: Another process is in, or came first.
    """
    own = f"{name}{SUFFIX}{uuid.uuid4().hex[:12]}"
    try:
        _create(client, own)
        _wait_until_alone(client, name, own)
        yield lambda: _require(client, name, own)
    finally:
        _remove(client, own)


def _create(client: Any, lock: str) -> None:
    try:
        client.create_registered_model(lock, description="A promotion is being written down.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # a repeated request met its first
            raise


def _wait_until_alone(client: Any, name: str, own: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        turns = {lock.name: (lock.creation_timestamp, lock.name) for lock in _living(client, name)}
        mine = turns.pop(own, None)
        if mine is not None and not turns:
            return
        came_later = mine is None or min(turns.values()) < mine
        if came_later or time.monotonic() > until:
            raise RegistryError(
                f"another process is moving the champion of {name} at this moment", remedy=_REMEDY
            )
        time.sleep(_LOOK_EVERY_S)


def _living(client: Any, name: str) -> list[Any]:
    """Every lock of a registered model; those that a crash left behind are deleted."""
    found = client.search_registered_models(f"name LIKE '{name}{SUFFIX}%'")
    living = []
    for lock in found:
        if time.time() - lock.creation_timestamp / 1000 > LASTS_S:
            _remove(client, lock.name)
        else:
            living.append(lock)
    return living


def _require(client: Any, name: str, own: str) -> None:
    try:
        client.get_registered_model(own)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(
            f"another process took over while the champion of {name} was being moved; this one"
            " moved nothing",
            remedy=_REMEDY,
        ) from error


def _remove(client: Any, lock: str) -> None:
    """Delete a lock. What was done under it is done, so a failure here is only noted."""
    try:
        client.delete_registered_model(lock)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # others may have taken it for old
            logger.warning("the lock %s could not be deleted: %s", lock, error)
