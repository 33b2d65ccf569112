"""Which device trains, and how: found once per process, before any model is built."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from breakhis_search.errors import DeviceError
from breakhis_search.training.determinism import ask_for_determinism, require_determinism
from breakhis_search.training.threads import threads_in_use

Requested = Literal["auto", "gpu", "cpu"]


@contextmanager
def _native_stderr_kept_back() -> Iterator[None]:
    """Hold back what C++ code writes to stderr, and show it only if the block fails.

    TensorFlow logs two lines before its own log level is in force.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:  # whatever went wrong, what was held back may say why
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


BACKEND_VARIABLES = {"TF_ENABLE_ONEDNN_OPTS": "1"}
"""Environment of a process that computes, where the user has not said otherwise. TensorFlow uses
oneDNN by itself only on processors with instructions for neural networks (AVX512-VNNI and later);
on others, too, its convolutions are up to twice as fast (docs/speed.md)."""

_IMPORTING: dict[str, float] = {}


def import_keras() -> Any:
    """Return the keras module, imported without the backend's start-up messages."""
    start = time.perf_counter()
    for name, value in BACKEND_VARIABLES.items():
        os.environ.setdefault(name, value)
    with _native_stderr_kept_back():
        import keras
    _IMPORTING.setdefault("seconds", time.perf_counter() - start)  # later ones find it there
    return keras


@dataclass(frozen=True)
class Device:
    """The device all models of this process train on.

    Attributes:
        kind: ``gpu`` or ``cpu``.
        name: Its product name.
        backend: The Keras backend (``tensorflow`` or ``jax``).
        precision: The Keras dtype policy in force, such as ``mixed_bfloat16``.
        seconds: What importing Keras and finding the device took.
        memory_bytes: Of the GPU; 0 on a CPU and where it is not known.
        threads: That share an operation on the CPU; 0 where nobody asked.
    """

    kind: Literal["gpu", "cpu"]
    name: str
    backend: str
    precision: str
    seconds: float = 0.0
    memory_bytes: int = 0
    threads: int = 0


def prepare_device(
    requested: Requested,
    *,
    mixed_precision: bool = True,
    deterministic: bool = False,
    compilations: Path | None = None,
) -> Device:
    """Choose the device, let GPU memory grow as needed, set precision and determinism.

    Args:
        requested: ``gpu`` insists on one; ``cpu`` hides them; ``auto`` takes one where it is.
        mixed_precision: Compute in 16 bits on a GPU that is made for it.
        deterministic: Use deterministic operations only (slower).
        compilations: Folder in which JAX keeps what it compiled, for later processes.

    Raises:
        DeviceError: A GPU was asked for and the backend sees none.
        ConfigError: Determinism was asked for after JAX had used a GPU without it.
    """
    keras = import_keras()
    start = time.perf_counter()
    backend = keras.backend.backend()
    if deterministic:
        ask_for_determinism(backend)
    with _native_stderr_kept_back():  # a missing CUDA driver is no news on a CPU
        gpus = _gpus(backend, hide=requested == "cpu")
    if requested == "gpu" and not gpus:
        raise DeviceError(
            "no GPU is visible to this process",
            expected=f"a GPU that {backend} can use",
            received="CPU only",
            remedy="install the CUDA libraries (`pip install 'breakhis-search[gpu]'`), check"
            " `nvidia-smi`, or use --device cpu",
        )
    if backend == "jax" and compilations:
        _keep_compilations(compilations)
    if deterministic and gpus:
        require_determinism(backend)
    precision = gpus[0][1] if gpus and mixed_precision else "float32"
    keras.config.set_dtype_policy(precision)
    name = gpus[0][0] if gpus else platform.processor() or platform.machine()
    seconds = time.perf_counter() - start + _IMPORTING.get("seconds", 0.0)
    return Device(
        "gpu" if gpus else "cpu",
        name,
        backend,
        precision,
        seconds,
        memory_bytes=_gpu_memory(backend) if gpus else 0,
        threads=threads_in_use(backend),
    )


def _keep_compilations(folder: Path) -> None:
    """Let JAX compile a graph once per machine. TensorFlow has no such cache: it traces anew."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _gpus(backend: str, *, hide: bool) -> list[tuple[str, str]]:
    """(name, best mixed precision) of every GPU the backend may use from now on."""
    if backend == "tensorflow":
        return _tensorflow_gpus(hide=hide)
    import jax

    if hide:
        jax.config.update("jax_platforms", "cpu")
    return [(d.device_kind, "mixed_bfloat16") for d in jax.devices() if d.platform == "gpu"]


def _tensorflow_gpus(*, hide: bool) -> list[tuple[str, str]]:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if hide or not gpus:
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        return []
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return [_describe(tf.config.experimental.get_device_details(gpu)) for gpu in gpus]


def _describe(details: dict[str, Any]) -> tuple[str, str]:
    """Ampere (compute capability 8.0) and later compute bfloat16 at full speed, earlier float16."""
    modern = details.get("compute_capability", (0, 0)) >= (8, 0)
    name = str(details.get("device_name", "GPU"))
    return name, "mixed_bfloat16" if modern else "mixed_float16"


def _gpu_memory(backend: str) -> int:
    """Memory of the first GPU that this process may use, in bytes; 0 where nobody says."""
    if backend == "jax":
        import jax

        return int((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    try:
        answer = subprocess.run(
            [
                "nvidia-smi",
                *([f"--id={visible.split(',')[0]}"] if visible else []),
                "--query-gpu=memory.total",
                "--format=csv,noheader,nounits",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
        return int(answer.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a backend says that a device's memory is used up; each has its own class."""
    return (
        isinstance(error, MemoryError)
        or "RESOURCE_EXHAUSTED" in str(error)
        or "ResourceExhausted" in type(error).__name__
    )


def reset_peak_memory(device: Device) -> None:
    """Let the peak of the GPU start anew; that of a process and of JAX cannot be reset."""
    if device.kind == "gpu" and device.backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")


def peak_memory_mb(device: Device) -> float:
    """Return the peak memory in MB.

    On a GPU under TensorFlow since :func:`reset_peak_memory`, under JAX since the process started;
    on a CPU the peak of the whole process so far.
    """
    if device.kind == "gpu" and device.backend == "tensorflow":
        import tensorflow as tf

        return float(tf.config.experimental.get_memory_info("GPU:0")["peak"]) / 1e6
    if device.kind == "gpu":
        import jax

        statistics = jax.devices()[0].memory_stats() or {}
        return float(statistics.get("peak_bytes_in_use", 0)) / 1e6
    # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
    unit = 1e6 if platform.system() == "Darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def resident_gb() -> float:
    """Return the memory that this process takes now, in GB; its peak where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory_mb(Device("cpu", "", "", "")) / 1e3
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
