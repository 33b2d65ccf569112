"""The registered classifier as MLflow holds it: self-contained, without pickle."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.images import prepare
from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.workflow.loading import verified_copy

SCRIPT = """
import sys, mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
import breakhis_search
assert breakhis_search.__version__ == "99", breakhis_search.__version__
print(model.predict(pandas.DataFrame({"image": [open(sys.argv[2], "rb").read()]})).to_json())
"""


@pytest.fixture(scope="module")
def folder(searched) -> Path:
    version = searched.client.get_model_version_by_alias("breakhis-binary-demo", "champion")
    uri = f"models:/breakhis-binary-demo/{version.version}"
    return Path(mlflow.artifacts.download_artifacts(uri))


@pytest.fixture(scope="module")
def model(folder):
    return mlflow.pyfunc.load_model(str(folder))


@pytest.fixture(scope="module")
def image(searched) -> Path:
    return min(searched.demo.rglob("*.png"))


def test_it_holds_no_pickle(folder):
    files = [f.name for f in folder.rglob("*") if f.is_file()]
    assert "model.keras" in files
    assert not [f for f in files if f.endswith((".pkl", ".pickle", ".cloudpickle"))]


def test_it_carries_its_preparation_code_under_a_name_of_its_own(folder):
    [package] = (folder / "code").glob("breakhis_classifier_*")
    assert (package / "images.py").is_file()


def test_it_answers_what_its_keras_model_answers(folder, model, image):
    import keras

    inner = keras.models.load_model(next(folder.rglob("model.keras")), compile=False)
    batch = prepare(image.read_bytes(), 32, 48)[None].astype(np.float32)
    calibration = Calibration.from_dict(
        mlflow.models.Model.load(folder).flavors["python_function"]["config"]
    )
    expected = calibration.calibrated_probabilities(np.asarray(inner(batch)))[0]
    answer = model.predict(pd.DataFrame({"image": [image.read_bytes()]})).iloc[0]
    assert [answer["probability_benign"], answer["probability_malignant"]] == pytest.approx(
        expected.tolist(), abs=1e-5
    )


def test_it_takes_base64_as_over_http(model, image):
    as_bytes = model.predict(pd.DataFrame({"image": [image.read_bytes()]}))
    context = model.unwrap_python_model()
    text = base64.b64encode(image.read_bytes()).decode()
    as_text = context.predict(None, pd.DataFrame({"image": [text]}))
    np.testing.assert_allclose(as_bytes.iloc[:, 1:], as_text.iloc[:, 1:], atol=1e-6)


def test_it_refuses_what_is_no_image(model):
    with pytest.raises(ValueError, match="image"):
        model.predict(pd.DataFrame({"image": [b"no image"]}))


def test_it_answers_many_images_in_batches(model, searched):
    files = sorted(searched.demo.rglob("*.png"))[:40]
    answer = model.predict(pd.DataFrame({"image": [f.read_bytes() for f in files]}))
    assert len(answer) == 40
    np.testing.assert_allclose(answer.iloc[:, 1:].sum(axis=1), 1.0, atol=1e-6)


def test_compiled_code_that_somebody_planted_is_never_loaded(searched, folder):
    version = searched.client.get_model_version_by_alias("breakhis-binary-demo", "champion")
    [package] = (folder / "code").glob("breakhis_classifier_*")
    planted = package / "__pycache__" / f"images.{sys.implementation.cache_tag}.pyc"
    planted.parent.mkdir(exist_ok=True)
    kept = planted.read_bytes() if planted.exists() else None
    planted.write_bytes(b"not what was registered")
    try:
        with verified_copy(version) as copy:
            assert not list(copy.rglob("*.pyc"))
            assert list((copy / "code").rglob("images.py"))
            assert copy != folder
        assert not copy.exists(), "nothing is left behind"
    finally:
        planted.unlink()
        if kept:
            planted.write_bytes(kept)


def test_it_runs_beside_another_version_of_this_package(folder, model, image, tmp_path):
    other = tmp_path / "breakhis_search"
    other.mkdir()
    (other / "__init__.py").write_text('__version__ = "99"\n')
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(image)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    received = pd.read_json(io.StringIO(done.stdout.splitlines()[-1]))
    expected = model.predict(pd.DataFrame({"image": [image.read_bytes()]}))
    np.testing.assert_allclose(received.iloc[:, 1:], expected.iloc[:, 1:], atol=1e-4)
