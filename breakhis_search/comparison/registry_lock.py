"""One writer at a time of what a registered model's record says, on every kind of MLflow store.

MLflow has no compare-and-set, but the name of a registered model is unique in its database: who
creates the empty model ``….being-promoted`` is in, and removes it at the end.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.exceptions import MlflowException

from breakhis_search.errors import RegistryError

_SUFFIX = ".being-promoted"
_OWNER = "owner"
_LASTS_S = 600
"""It is held for less than a second; an older one was left by a crash. The clocks of two machines
may differ, and MLflow repeats a slow request for minutes."""


@contextmanager
def registry_lock(client: Any, name: str) -> Iterator[Callable[[], None]]:
    """Let one process at a time in; the value raises where the lock is no longer this process's.

    Args:
        client: An MLflow client.
        name: Registered model.

    Raises:
        RegistryError: Another process is in.
    """
    lock, owner = name + _SUFFIX, uuid.uuid4().hex
    _take(client, lock, owner, name)
    try:
        yield lambda: _check(client, lock, owner, name)
    finally:
        # What another one took over is not ours to delete.
        if _owner_of(client, lock) == owner:
            _remove(client, lock)


def _take(client: Any, lock: str, owner: str, name: str) -> None:
    for _ in range(2):
        try:
            client.create_registered_model(
                lock, tags={_OWNER: owner}, description="A promotion is being written down."
            )
        except MlflowException as error:
            # MLflow looks up what was in its way, which may be gone again by then.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
            if _owner_of(client, lock) == owner:  # a repeated request met its own first one
                return
            _remove_if_left_behind(client, lock)
        else:
            return
    raise RegistryError(
        f"another process is moving the champion of {name} at this moment",
        remedy="look at `compare --history`, then decide again",
    )


def _check(client: Any, lock: str, owner: str, name: str) -> None:
    """Raise if the lock was taken for one left by a crash: this process was away for too long."""
    if _owner_of(client, lock) != owner:
        raise RegistryError(
            f"another process took over while the champion of {name} was being moved; nothing was"
            " moved by this one",
            remedy="look at `compare --history`, then decide again",
        )


def _owner_of(client: Any, lock: str) -> str | None:
    try:
        owner: str | None = client.get_registered_model(lock).tags.get(_OWNER)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return owner


def _remove_if_left_behind(client: Any, lock: str) -> None:
    try:
        since_ms = client.get_registered_model(lock).creation_timestamp
        if time.time() - since_ms / 1000 > _LASTS_S:
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
