"""The connection of this process to a Ray cluster: one that runs, or one of this machine alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from breakhis_search.errors import EngineError

_LOOPBACK = "127.0.0.1"


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Be connected to a cluster; one that is started here ends with the block.

    Who is connected already stays so.

    Args:
        address: Of a cluster that runs; ``None`` starts one that only this machine can reach.

    Raises:
        EngineError: There is no Ray, or no such cluster.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            "the engine ray is not installed", remedy="pip install 'breakhis-search[ray]'"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    try:
        with _joined(ray, address) if address else _own(ray):
            yield ray
    finally:
        ray.shutdown()


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    _start(ray, f"there is no Ray cluster at {address}", address=address)
    yield


@contextmanager
def _own(ray: Any) -> Iterator[None]:
    """Run a cluster whose processes listen on the loopback interface alone.

    Its workers do whatever they are sent, and Ray of itself listens on all interfaces. Only where
    it takes its machine for one that cannot be part of a cluster does it not; an address given as
    ``_node_ip_address`` it translates to an outer one.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        # Without "local" Ray would join whatever cluster it finds on this machine.
        _start(ray, "Ray does not start here", address="local", include_dashboard=False)
        _require_loopback(ray)
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _start(ray: Any, failure: str, **options: Any) -> None:
    try:
        ray.init(**options, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(
            failure,
            received=str(error).splitlines()[0][:200] if str(error) else None,
            remedy="start one with `ray start --head`, or leave --address out for one of this"
            " machine's own",
        ) from error


def _require_loopback(ray: Any) -> None:
    """Refuse to work where another version of Ray does not know what keeps it to this machine."""
    found = [node["NodeManagerAddress"] for node in ray.nodes()]
    if found != [_LOOPBACK]:
        raise EngineError(
            "this version of Ray would let other machines in",
            expected=f"a cluster that listens on {_LOOPBACK} alone",
            received=f"{', '.join(found)} with ray {ray.__version__}",
            remedy="install a version that this package was tested with, or start a cluster with"
            " `ray start --head` and give --address",
        )
