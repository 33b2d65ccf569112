"""How busy the machine is, under the names of MLflow's own system metrics."""

from __future__ import annotations

import psutil

_BYTES_PER_MB = 1e6  # as MLflow counts them


def system_usage() -> dict[str, float]:
    """Return one sample of processors and memory of the whole machine.

    No thread, no waiting: processor use is the mean since the last call in this process, 0 at the
    first one. MLflow's UI shows names under ``system/`` in a tab of their own.
    """
    memory = psutil.virtual_memory()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(interval=None),
        "system/system_memory_usage_megabytes": memory.used / _BYTES_PER_MB,
        "system/system_memory_usage_percentage": memory.used / memory.total * 100,
    }
