"""Checks that a packed model loads in a process of its own and answers a real image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
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
_ANSWER = "ANSWER "
_TOLERANCE = 1e-4  # of a probability: another process may pick other CPU kernels

_SCRIPT = """
import json, sys
import keras, mlflow.pyfunc, pandas
asked = sys.stdin.readline()
if asked:
    folder, image = json.loads(asked)
    model = mlflow.pyfunc.load_model(folder)
    answer = model.predict(pandas.DataFrame({"image": [open(image, "rb").read()]}))
    probabilities = answer[[c for c in answer if c.startswith("probability_")]]
    print("ANSWER " + json.dumps(probabilities.iloc[0].tolist()))
"""
"""Loads what is heavy, waits to be asked, answers, ends; without a word where nobody asks."""


@contextmanager
def no_pickle() -> Iterator[None]:
    """Have MLflow unpickle nothing in this process during the block."""
    with environment_kept(*NO_PICKLE):
        os.environ.update(NO_PICKLE)
        yield


class FreshProcess:
    """A process that knows nothing of this one, to load a packed model in and compare its answer.

    It starts when the block is entered and loads its libraries, which takes seconds, meanwhile.

    Args:
        workdir: Folder to run in; it must not hold this package's source.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir

    def __enter__(self) -> FreshProcess:
        self._errors = tempfile.TemporaryFile("w+")  # a pipe that nobody reads may fill up
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=self._workdir,
            env={**os.environ, **NO_PICKLE},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def verify(self, folder: Path, image: Path, expected: npt.NDArray[np.float64]) -> None:
        """Load a packed model there and compare its answer; once.

        Args:
            folder: The MLflow model folder.
            image: An image file.
            expected: Calibrated probabilities this process gives for it, float64 [K].

        Raises:
            RegistryError: It does not load, or answers something else.
        """
        received = np.array(self._answer(folder, image))
        worst = float(np.abs(received - expected).max())
        if not worst <= _TOLERANCE:
            raise RegistryError(
                "the packed model answers differently in a fresh process",
                expected=f"the same probabilities within {_TOLERANCE}",
                received=f"a difference of {worst:.2g}",
                remedy="report this as a defect; nothing was registered",
            )

    def _answer(self, folder: Path, image: Path) -> list[float]:
        try:
            told, _ = self._process.communicate(
                json.dumps([str(folder), str(image)]) + "\n", timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise RegistryError(
                f"the packed model did not answer within {_TIMEOUT_S} s in a fresh process",
                remedy="try again on a less busy machine; nothing was registered",
            ) from error
        answers = [line for line in told.splitlines() if line.startswith(_ANSWER)]
        if self._process.returncode or not answers:
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["no output"])[-1]
            raise RegistryError(
                "the packed model does not load in a fresh process",
                received=last[:300],
                remedy="report this as a defect; nothing was registered",
            )
        probabilities: list[float] = json.loads(answers[-1].removeprefix(_ANSWER))
        return probabilities
