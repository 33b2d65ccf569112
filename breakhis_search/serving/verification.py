"""Checks that a packed model loads in a process of its own and answers a real image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from breakhis_search.errors import RegistryError
from breakhis_search.settings import environment_kept

NO_PICKLE = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
"""Environment in which MLflow unpickles nothing."""

_TIMEOUT_S = 300
_TOLERANCE = 1e-4  # of a probability: another process may pick other CPU kernels

_SCRIPT = """
import json, sys
import mlflow.pyfunc, pandas
folder, image = sys.argv[1:]
model = mlflow.pyfunc.load_model(folder)
answer = model.predict(pandas.DataFrame({"image": [open(image, "rb").read()]}))
probabilities = answer[[c for c in answer if c.startswith("probability_")]]
print("ANSWER " + json.dumps(probabilities.iloc[0].tolist()))
"""


@contextmanager
def no_pickle() -> Iterator[None]:
    """Have MLflow unpickle nothing in this process during the block."""
    with environment_kept(*NO_PICKLE):
        os.environ.update(NO_PICKLE)
        yield


def verify_in_fresh_process(
    folder: Path, image: Path, expected: npt.NDArray[np.float64], *, workdir: Path
) -> None:
    """Load a packed model in a new process and compare its answer.

    Args:
        folder: The MLflow model folder.
        image: An image file.
        expected: Calibrated probabilities this process gives for it, float64 [K].
        workdir: Folder to run in; it must not hold this package's source.

    Raises:
        RegistryError: It does not load, or answers something else.
    """
    environment = {**os.environ, **NO_PICKLE}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(folder), str(image)],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            cwd=workdir,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise RegistryError(
            f"the packed model did not answer within {_TIMEOUT_S} s in a fresh process",
            remedy="try again on a less busy machine; nothing was registered",
        ) from error
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or not answers:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise RegistryError(
            "the packed model does not load in a fresh process",
            received=last[:300],
            remedy="report this as a defect; nothing was registered",
        )
    received = np.array(json.loads(answers[-1].removeprefix("ANSWER ")))
    worst = float(np.abs(received - expected).max())
    if not worst <= _TOLERANCE:
        raise RegistryError(
            "the packed model answers differently in a fresh process",
            expected=f"the same probabilities within {_TOLERANCE}",
            received=f"a difference of {worst:.2g}",
            remedy="report this as a defect; nothing was registered",
        )
