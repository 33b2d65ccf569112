"""Who asks JAX for determinism after it has started is told so."""

from __future__ import annotations

import os

import pytest

from breakhis_search.errors import ConfigError
from breakhis_search.training import determinism
from breakhis_search.training.determinism import ask_for_determinism, require_determinism


@pytest.mark.parametrize("has_started", [False, True])
def test_xla_is_asked_before_it_starts_or_refused(monkeypatch, has_started):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp/x")
    monkeypatch.setattr(determinism, "has_jax_started", lambda: has_started)
    ask_for_determinism("jax")
    if has_started:
        with pytest.raises(ConfigError, match="comes too late for JAX.*before it starts"):
            require_determinism("jax")
    else:
        require_determinism("jax")
        assert os.environ["XLA_FLAGS"] == "--xla_dump_to=/tmp/x --xla_gpu_deterministic_ops=true"


def test_user_who_asked_already_is_not_refused(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    monkeypatch.setattr(determinism, "has_jax_started", lambda: True)
    require_determinism("jax")
