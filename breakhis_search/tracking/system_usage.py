"""How busy the machine is, under the names of MLflow's own system metrics."""

from __future__ import annotations

from functools import cache
from typing import Any

import psutil

_BYTES_PER_MB = 1e6  # as MLflow counts them


def system_usage() -> dict[str, float]:
    """Return one sample of the processors, memory and NVIDIA GPUs of the whole machine.

    No thread, no waiting: processor use is the mean since the last call in this process, 0 at the
    first one. MLflow's UI shows names under ``system/`` in a tab of their own.
    """
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(interval=None),
        "system/system_memory_usage_megabytes": memory.used / _BYTES_PER_MB,
        "system/system_memory_usage_percentage": memory.used / memory.total * 100,
        **_gpu_usage(),
    }


def _gpu_usage() -> dict[str, float]:
    monitor = _gpu_monitor()
    if monitor is None:
        return {}
    monitor.collect_metrics()
    found = monitor.aggregate_metrics()
    monitor.clear_metrics()
    return {f"system/{name}": float(number) for name, number in found.items()}


@cache
def _gpu_monitor() -> Any | None:
    """MLflow's reader of NVIDIA's management library; ``None`` without that or without a GPU."""
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    try:
        return GPUMonitor()
    except (ImportError, RuntimeError):
        return None
