"""The registered classifier as MLflow holds it: self-contained, without pickle."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.images import prepare
from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.workflow.loading import verified_copy
from tests.patience import PATIENCE_S

SCRIPT = """
import sys, mlflow.pyfunc, pandas
if sys.argv[1] == "absent":
    sys.modules["breakhis_search"] = None
    try:
        import breakhis_search
        sys.exit("it is there")
    except ModuleNotFoundError:
        pass
else:
    import breakhis_search
    assert breakhis_search.__version__ == "99", breakhis_search.__version__
model = mlflow.pyfunc.load_model(sys.argv[2])
images = [open(name, "rb").read() for name in sys.argv[3:]]
print(model.predict(pandas.DataFrame({"image": images})).to_json(double_precision=15))
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


def trained_answer(folder: Path, images: Sequence[Path]) -> np.ndarray:
    """What the network says of images prepared as for training, calibrated."""
    import keras

    inner = keras.models.load_model(next(folder.rglob("model.keras")), compile=False)
    batch = np.stack([prepare(file.read_bytes(), 32, 48) for file in images]).astype(np.float32)
    calibration = Calibration.from_dict(
        mlflow.models.Model.load(folder).flavors["python_function"]["config"]
    )
    return calibration.calibrated_probabilities(np.asarray(inner(batch)))


def test_it_answers_what_its_keras_model_answers(folder, model, image):
    answer = model.predict(pd.DataFrame({"image": [image.read_bytes()]})).iloc[0]
    [expected] = trained_answer(folder, [image])
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


@pytest.mark.parametrize("package", ["absent", "another version"])
def test_it_answers_as_in_training_without_this_package(
    folder, image, real_data, tmp_path, package
):
    """On real images: the training path and the served one differ by no more than rounding."""
    if package != "absent":
        (tmp_path / "breakhis_search").mkdir()
        (tmp_path / "breakhis_search" / "__init__.py").write_text('__version__ = "99"\n')
    images = [image, *sorted(real_data.rglob("SOB_*.png"))[:4]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, package, str(folder), *map(str, images)],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    received = pd.read_json(io.StringIO(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(
        received[["probability_benign", "probability_malignant"]],
        trained_answer(folder, images),
        atol=1e-5,
    )
