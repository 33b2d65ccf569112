"""Saved models stand on their own: they load safely where this package is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from breakhis_search.models.architectures import ARCHITECTURES

# Keras 3.15 saves its variables through numpy in a way numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FOREIGN = (
    "keras_tuner.applications:HyperResNet",
    "keras_tuner.applications:HyperXception",
)

LOAD_ALL = """
import sys, pathlib, numpy, keras
images = numpy.load("images.npy").astype("float32")
logits = {}
for path in sorted(pathlib.Path().glob("*.keras")):
    model = keras.models.load_model(path, safe_mode=True)
    logits[path.stem] = keras.ops.convert_to_numpy(model(images))
numpy.savez("logits.npz", **logits)
foreign = {"breakhis_search", "keras_tuner", "my_hypermodels"} & set(sys.modules)
sys.exit(f"imported {foreign}" if foreign else 0)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, built_model, images) -> tuple[Path, Any]:
    """Folder of saved models loaded in a bare process, and the logits they gave before."""
    folder = tmp_path_factory.mktemp("models")
    np.save(folder / "images.npy", images)
    before = {}
    for name in (*ARCHITECTURES, *FOREIGN, "my_hypermodels:NestedSoftmax"):
        model = built_model(name)
        stem = name.rsplit(":", maxsplit=1)[-1]
        model.save(folder / f"{stem}.keras")
        before[stem] = keras.ops.convert_to_numpy(model(images.astype("float32")))
    command = [sys.executable, "-I", "-c", LOAD_ALL]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, before


@pytest.mark.parametrize("name", [*ARCHITECTURES, "HyperResNet", "HyperXception", "NestedSoftmax"])
def test_saved_model_gives_the_same_logits_in_a_bare_process(name: str, files):
    folder, before = files
    after = np.load(folder / "logits.npz")[name]
    np.testing.assert_allclose(after, before[name], rtol=1e-5, atol=1e-5)
