"""How many threads share an operation on the CPU: the sums they make depend on it, in the last bit.

Worker processes get their share of the machine; the environment variables that say so are read by
the backends themselves, when they first compute.
"""

from __future__ import annotations

import os
from contextlib import suppress

from breakhis_search.processes import usable_cores
from breakhis_search.training.determinism import has_jax_started

VARIABLES = {"tensorflow": "TF_NUM_INTRAOP_THREADS", "jax": "NPROC"}
"""JAX: ``DefaultThreadPoolSize`` in ``xla/pjrt/utils.cc``."""


def threads_in_use(backend: str) -> int:
    """Return how many threads of this process share an operation on the CPU."""
    return _set_in_program(backend) or _set_from_outside(backend) or usable_cores()


def use_threads(backend: str, count: int) -> None:
    """Let so many threads share an operation, where the backend has not computed anything yet.

    Where it has, all stays as it is, which :func:`threads_in_use` tells.
    """
    if threads_in_use(backend) == count:
        return
    if backend == "tensorflow":
        import tensorflow as tf

        with suppress(RuntimeError):  # it has computed something
            tf.config.threading.set_intra_op_parallelism_threads(count)
    elif not has_jax_started():
        os.environ[VARIABLES[backend]] = str(count)


def _set_in_program(backend: str) -> int:
    if backend != "tensorflow":
        return 0
    import tensorflow as tf

    return int(tf.config.threading.get_intra_op_parallelism_threads())


def _set_from_outside(backend: str) -> int:
    text = os.environ.get(VARIABLES[backend], "")
    return int(text) if text.isdigit() else 0
