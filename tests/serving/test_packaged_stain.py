"""A packed classifier brings stains to the reference it was trained with, as training did."""

from __future__ import annotations

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.images import prepare
from breakhis_search.data.stain_cache import NormalizedImages, open_stain_cache
from breakhis_search.serving.package import package_classifier

SIZE_PX = (32, 48)
TRAIN = np.array([0, 1, 2])
UNSEEN = np.array([3, 4])
WHITE = 4


def colour_model():
    """Return a model whose logits follow the mean red and the mean blue."""
    import keras

    inputs = keras.Input((*SIZE_PX, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(pooled))
    model.layers[-1].set_weights([np.array([[9.0, 0.0], [0.0, 0.0], [0.0, 9.0]], np.float32)])
    return model


def file_of(row: int) -> bytes:
    """A PNG of nuclei and stroma by a laboratory of its own; one is of empty slide."""
    rng = np.random.default_rng(row)
    vectors = np.array([[0.65, 0.70, 0.29], [0.20, 0.90, 0.38]]) + rng.normal(0, 0.06, (2, 3))
    kinds = np.array([[1.1, 0.05], [0.05, 0.7], [0.5, 0.5]])[rng.choice(3, size=(64, 96))]
    kinds = np.zeros_like(kinds) if row == WHITE else kinds
    pixels = 240 * np.exp(-(kinds * rng.uniform(0.6, 1.2, (64, 96, 2))) @ vectors)
    done, encoded = cv2.imencode(".png", pixels.astype(np.uint8))
    assert done
    return encoded.tobytes()


@pytest.fixture(scope="module")
def files():
    return [file_of(row) for row in range(5)]


@pytest.fixture(scope="module")
def images(files):
    return np.stack([prepare(data, *SIZE_PX) for data in files])


@pytest.fixture(scope="module")
def stained(images, tmp_path_factory):
    """The images as a fold's training sees them."""
    names = [str(row) for row in range(len(images))]
    table = open_stain_cache(images, names, cache_dir=tmp_path_factory.mktemp("cache"))
    return NormalizedImages(images, table, table.fit_reference(TRAIN))


@pytest.fixture(scope="module")
def folder(stained, tmp_path_factory):
    return package_classifier(
        colour_model(),
        tmp_path_factory.mktemp("packed") / "model",
        class_names=("benign", "malignant"),
        height_px=SIZE_PX[0],
        width_px=SIZE_PX[1],
        metadata={},
        stain=stained.reference,
    ).folder


def served_logits(folder, files) -> np.ndarray:
    model = mlflow.pyfunc.load_model(str(folder))
    answer = model.predict(pd.DataFrame({"image": files}), params={"logits": True})
    return answer[["logit_benign", "logit_malignant"]].to_numpy()


def test_served_answer_is_the_one_of_training(folder, files, images, stained):
    served = served_logits(folder, [files[row] for row in UNSEEN])
    model = colour_model()
    np.testing.assert_allclose(served, model.predict_on_batch(stained[UNSEEN]), atol=1e-6)
    raw = model.predict_on_batch(images[UNSEEN])
    assert np.abs(served - raw)[0].max() > 0.1  # so much was at stake
    np.testing.assert_allclose(served[1], raw[1], atol=1e-6)  # nothing to normalise on white


def test_preparation_code_holds_the_stain_module(folder):
    [package] = (folder / "code").glob("breakhis_classifier_*")
    assert {"images.py", "stain.py"} <= {file.name for file in package.iterdir()}
