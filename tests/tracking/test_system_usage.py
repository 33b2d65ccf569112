"""One sample of how busy the machine is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

from breakhis_search.tracking import system_usage as module
from breakhis_search.tracking.system_usage import system_usage


def test_a_sample_has_names_that_mlflow_shows_apart():
    sample = system_usage()
    assert all(name.startswith("system/") for name in sample)
    assert 0 <= sample["system/cpu_utilization_percentage"] <= 100
    assert 0 < sample["system/system_memory_usage_percentage"] <= 100


@pytest.fixture
def one_gpu(monkeypatch) -> Iterator[ModuleType]:
    """NVIDIA's management library, as if there were one GPU."""
    from mlflow.system_metrics.metrics import gpu_monitor

    library = ModuleType("pynvml")
    library.NVMLError = RuntimeError
    library.nvmlInit = lambda: None
    library.nvmlDeviceGetCount = lambda: 1
    library.nvmlDeviceGetHandleByIndex = lambda index: index
    library.nvmlDeviceGetMemoryInfo = lambda _: SimpleNamespace(used=20e9, total=80e9)
    library.nvmlDeviceGetUtilizationRates = lambda _: SimpleNamespace(gpu=97)
    library.nvmlDeviceGetPowerUsage = lambda _: 350_000
    library.nvmlDeviceGetEnforcedPowerLimit = lambda _: 700_000
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(gpu_monitor, "pynvml", library, raising=False)
    module._gpu_monitor.cache_clear()
    yield library
    module._gpu_monitor.cache_clear()


def test_a_gpu_is_in_every_sample_as_it_is_then(one_gpu):
    first = system_usage()
    assert first["system/gpu_0_utilization_percentage"] == 97
    assert first["system/gpu_0_memory_usage_percentage"] == 25
    assert first["system/gpu_0_power_usage_watts"] == 350
    one_gpu.nvmlDeviceGetUtilizationRates = lambda _: SimpleNamespace(gpu=11)
    assert system_usage()["system/gpu_0_utilization_percentage"] == 11


def test_a_machine_without_a_gpu_says_nothing_of_one(one_gpu, monkeypatch):
    def fail() -> None:
        raise RuntimeError("Driver Not Loaded")

    monkeypatch.setattr(one_gpu, "nvmlInit", fail)
    assert not any("gpu" in name for name in system_usage())
