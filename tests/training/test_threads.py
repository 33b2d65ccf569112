"""How many threads share an operation: told, and set while that has an effect."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from breakhis_search.training.threads import threads_in_use
from tests.patience import PATIENCE_S

# In a process of its own: a backend takes its number of threads once.
SCRIPT = """
import json, os, sys
import keras
from breakhis_search.training.threads import threads_in_use, use_threads

def computing():
    keras.ops.convert_to_numpy(keras.ops.ones((2, 2)) @ keras.ops.ones((2, 2)))
    names = [open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")]
    return sum("XLAEigen" in name for name in names)

backend = keras.backend.backend()
use_threads(backend, 3)
before, pool = threads_in_use(backend), computing()
use_threads(backend, 2)
print(json.dumps([before, threads_in_use(backend), pool]))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_threads_are_set_before_a_backend_computes_and_not_after(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"no {backend}: pip install '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "NPROC": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after, pool = json.loads(done.stdout.splitlines()[-1])
    assert before == after == 3
    if backend == "jax":
        assert pool == 3, "XLA names its threads"


def test_share_of_a_worker_is_what_is_in_use(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert threads_in_use("tensorflow") == 7
