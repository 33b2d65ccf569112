"""Deterministic operations only, in the way that each backend wants to be asked for them."""

from __future__ import annotations

import os

from breakhis_search.errors import ConfigError

_XLA_FLAG = "--xla_gpu_deterministic_ops=true"
"""XLA then takes no kernel whose sums have no order, nor times any to choose it (``xla.proto``)."""


def ask_for_determinism(backend: str) -> None:
    """Have the backend use deterministic operations only; before it looks for devices.

    XLA reads its flags once, when JAX first computes: after that nothing is changed here, which
    :func:`require_determinism` tells.
    """
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif not has_jax_started() and not _has_flag():
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAG}".strip()


def require_determinism(backend: str) -> None:
    """Refuse to go on with a GPU that was not asked in time.

    Raises:
        ConfigError: JAX had computed before the study was read.
    """
    if backend == "jax" and not _has_flag():
        raise ConfigError(
            "training.deterministic comes too late for JAX, which has used the GPU already",
            expected=f"XLA_FLAGS with {_XLA_FLAG} before it starts",
            received=f"XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}",
            remedy="set it before Python starts, or training.deterministic: false",
        )


def has_jax_started() -> bool:
    """Return whether JAX has looked for devices, after which XLA reads no variables any more."""
    from jax._src import xla_bridge  # jax.extend.backend starts it by asking

    return bool(xla_bridge.backends_are_initialized())


def _has_flag() -> bool:
    return _XLA_FLAG in os.environ.get("XLA_FLAGS", "").split()
