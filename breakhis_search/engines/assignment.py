"""What a worker process is told at its start, and which devices there are to give out."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from breakhis_search.settings import Settings
from breakhis_search.study.storage import StudyVersion
from breakhis_search.training.threads import VARIABLES
from breakhis_search.workflow.request import RunRequest

_CUDA = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Assignment:
    """What a worker process is to do.

    Attributes:
        number: Of the worker, from 0.
        request: As typed.
        settings: Where things are.
        log: File that takes what the worker prints.
        environment: Variables to set before Keras is loaded: its device, its share of it.
        asks_before_hours: Whether the user is to be asked before hours on a CPU.
        version: The study to join; the first worker finds it, or makes it.
        leads: Whether it may select and register; others end when nothing is left to train.
        trials: After so many it makes room for a fresh process.
        memory_gb: It does so, too, when it takes more than that.
        began: When the run began, in seconds since 1970: its time is counted from there, whichever
            process takes the place of which.
        is_verbose: Whether its log is to hold what libraries warn of.
    """

    number: int
    request: RunRequest
    settings: Settings
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    asks_before_hours: bool = True
    version: StudyVersion | None = None
    leads: bool = True
    trials: int = 200
    memory_gb: float = 64.0
    began: float = field(default_factory=time.time)
    is_verbose: bool = False

    def joining(self, version: StudyVersion) -> Assignment:
        """Return the same for a study that exists."""
        return replace(self, version=version, asks_before_hours=False)


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    No deep-learning library is loaded for it, which would take memory of each.
    """
    named = (os.environ if environment is None else environment).get(_CUDA)
    if named is not None:
        parts = [part.strip() for part in named.split(",")]
        return [part for part in parts if part not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        told = subprocess.run(
            [program, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return told.stdout.split() if told.returncode == 0 else []


def share_out(workers: int, gpus: list[str], *, cores: int) -> list[dict[str, str]]:
    """Return the environment of each worker: its GPU and its share of it, or its share of the CPU.

    Args:
        workers: How many.
        gpus: As :func:`visible_gpus` returns them.
        cores: Of this machine.

    >>> share_out(2, ["0", "1"], cores=8)
    [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}]
    >>> share_out(2, [], cores=8)[0]
    {'OMP_NUM_THREADS': '4', 'TF_NUM_INTRAOP_THREADS': '4', 'NPROC': '4'}
    """
    if gpus:
        share = gpu_memory_share(-(-workers // len(gpus)))
        return [{_CUDA: gpus[i % len(gpus)], **share} for i in range(workers)]
    return [{}] if workers == 1 else [cpu_threads(cores // workers) for _ in range(workers)]


def gpu_memory_share(each: int) -> dict[str, str]:
    """Return what each of several workers on one GPU must be told of its memory.

    TensorFlow takes memory as it needs it; JAX takes its share at once.
    """
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / each:.2f}"} if each > 1 else {}


def cpu_threads(cores: int) -> dict[str, str]:
    """Return what lets a worker use so many cores, at least one."""
    return dict.fromkeys(("OMP_NUM_THREADS", *VARIABLES.values()), str(max(1, cores)))
