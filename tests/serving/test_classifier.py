"""The packed classifier: calibrated probabilities, locked decisions, patients, raw logits."""

from __future__ import annotations

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from breakhis_search.data.taxonomy import class_names
from breakhis_search.errors import RegistryError
from breakhis_search.evaluation.calibration import Calibration
from breakhis_search.evaluation.predictions import softmax
from breakhis_search.evaluation.thresholds import Thresholds
from breakhis_search.serving.package import package_classifier
from breakhis_search.serving.verification import FreshProcess

BINARY, TYPES = class_names("binary"), class_names("multiclass")
CALIBRATION = Calibration((0.5, -0.5), 2.0)
THRESHOLDS = Thresholds(
    {"half": 0.5, "youden": 0.3, "sensitivity_95": 0.1},
    {"half": 0.5, "youden": 0.45, "sensitivity_95": 0.2},
)


def linear_model(n_classes: int):
    """Return a model whose logits are k · brightness for class k, brightness in 0-1."""
    import keras

    inputs = keras.Input((8, 12, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    kernel = np.tile(np.arange(n_classes, dtype=np.float32) / 3, (3, 1))
    outputs = keras.layers.Dense(n_classes, use_bias=False)(pooled)
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([kernel])
    return model


def packed(folder, names, calibration=None, thresholds=None):
    return package_classifier(
        linear_model(len(names)),
        folder,
        class_names=names,
        height_px=8,
        width_px=12,
        metadata={"study": "tests"},
        calibration=calibration,
        thresholds=thresholds,
    )


def grey_image(brightness: int) -> bytes:
    done, encoded = cv2.imencode(".png", np.full((8, 12, 3), brightness, dtype=np.uint8))
    assert done
    return encoded.tobytes()


def images_of(*brightness: int) -> pd.DataFrame:
    return pd.DataFrame({"image": [grey_image(value) for value in brightness]})


def logits_of(*brightness: int, n_classes: int = 2) -> np.ndarray:
    return np.outer(np.array(brightness) / 255, np.arange(n_classes))


def probability(answer: pd.DataFrame, names=BINARY, prefix: str = "") -> np.ndarray:
    return answer[[f"{prefix}probability_{name}" for name in names]].to_numpy()


@pytest.fixture(scope="module")
def binary_folder(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("b") / "model", BINARY, CALIBRATION, THRESHOLDS).folder


@pytest.fixture(scope="module")
def binary(binary_folder):
    return mlflow.pyfunc.load_model(str(binary_folder))


@pytest.fixture(scope="module")
def multiclass(tmp_path_factory):
    # The correction makes class 0 the most probable one, whatever the logits say.
    calibration = Calibration((9.0, *[0.0] * 7), 1.0)
    folder = packed(tmp_path_factory.mktemp("m") / "model", TYPES, calibration).folder
    return mlflow.pyfunc.load_model(str(folder))


def test_probabilities_are_calibrated(binary):
    expected = softmax((logits_of(0, 255) + np.array([0.5, -0.5])) / 2.0)
    assert probability(binary.predict(images_of(0, 255))) == pytest.approx(expected, abs=1e-6)


def test_without_calibration_probabilities_are_the_softmax(tmp_path):
    model = mlflow.pyfunc.load_model(str(packed(tmp_path / "model", BINARY).folder))
    answer = model.predict(images_of(0, 255))
    assert probability(answer) == pytest.approx(softmax(logits_of(0, 255)), abs=1e-6)
    assert answer["label"].tolist() == ["benign", "malignant"]


def test_binary_label_is_decided_by_the_locked_image_threshold(binary):
    answer = binary.predict(images_of(0, 255))
    # p(malignant) = sigmoid(-0.5) = 0.378 and sigmoid(0) = 0.5: both at or above 0.3
    assert answer["probability_malignant"].tolist() == pytest.approx([0.3775, 0.5], abs=1e-4)
    assert answer["label"].tolist() == ["malignant", "malignant"]


def test_another_rule_can_be_chosen_when_the_model_is_loaded(binary_folder):
    decision = {"rule": "half", "class": "malignant", "image": 0.45, "patient": 0.5}
    model = mlflow.pyfunc.load_model(str(binary_folder), model_config={"decision": decision})
    assert model.predict(images_of(0, 255))["label"].tolist() == ["benign", "malignant"]


def test_multiclass_label_is_that_of_the_largest_uncalibrated_logit(multiclass):
    answer = multiclass.predict(images_of(255))
    assert answer["label"].tolist() == [TYPES[-1]]
    assert probability(answer, TYPES).argmax() == 0


def test_a_patient_is_answered_by_the_mean_of_its_images(binary):
    table = images_of(0, 255, 100).assign(patient=["a", "a", "b"])
    answer = binary.predict(table)
    images = probability(answer)
    means = np.array([images[:2].mean(axis=0), images[:2].mean(axis=0), images[2]])
    assert probability(answer, prefix="patient_") == pytest.approx(means)
    # 0.439 and 0.425 are below the 0.45 that was locked for patients
    assert answer["patient_label"].tolist() == ["benign", "benign", "benign"]


def test_a_multiclass_patient_is_decided_by_the_mean_uncalibrated_probability(multiclass):
    answer = multiclass.predict(images_of(255, 200).assign(patient=["a", "a"]))
    assert answer["patient_label"].tolist() == [TYPES[-1]] * 2
    assert probability(answer, TYPES, "patient_").argmax(axis=1).tolist() == [0, 0]


def test_without_patients_there_are_no_patient_columns(binary):
    answer = binary.predict(images_of(0))
    assert answer.columns.tolist() == ["label", "probability_benign", "probability_malignant"]


def test_a_patient_that_is_named_for_some_images_only_is_refused(binary):
    with pytest.raises(ValueError, match="must name the patient of every image"):
        binary.predict(images_of(0, 255).assign(patient=["a", None]))


def test_logits_are_given_when_asked_for(binary):
    answer = binary.predict(images_of(0, 255), params={"logits": True})
    found = answer[["logit_benign", "logit_malignant"]].to_numpy()
    assert found == pytest.approx(logits_of(0, 255), abs=1e-6)


def test_the_model_folder_tells_calibration_and_all_thresholds(binary):
    metadata = binary.metadata.metadata
    assert Calibration.from_dict(metadata["calibration"]) == CALIBRATION
    assert Thresholds.from_dict(metadata["thresholds"]) == THRESHOLDS
    assert metadata["study"] == "tests"


@pytest.mark.parametrize(("names", "calibration"), [(BINARY, None), (TYPES, CALIBRATION)])
def test_thresholds_without_calibration_or_binary_task_are_refused(tmp_path, names, calibration):
    with pytest.raises(RegistryError, match="thresholds cannot be packed"):
        packed(tmp_path / "model", names, calibration, THRESHOLDS)


def test_an_answer_without_the_calibration_is_noticed_in_a_fresh_process(binary_folder, tmp_path):
    image = tmp_path / "image.png"
    image.write_bytes(grey_image(255))
    uncalibrated = softmax(logits_of(255))[0]  # 0.731 for malignant; the packed model says 0.5
    with (
        FreshProcess(tmp_path) as fresh,
        pytest.raises(RegistryError, match=r"differently in a fresh .* difference of 0\.23"),
    ):
        fresh.verify(binary_folder, image, uncalibrated)


def test_paths_and_pixels_are_answered_as_their_bytes(binary, tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(grey_image(80))
    pixels = np.full((8, 12, 3), 80, dtype=np.uint8)
    answer = binary.predict(pd.DataFrame({"image": [file.read_bytes(), file, pixels]}))
    assert len(answer) == 3
    np.testing.assert_allclose(probability(answer)[1:], probability(answer)[[0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((8, 12), np.uint8), "row 1 .*received 8-bit grayscale"),
        (np.zeros((8, 12, 4), np.uint8), "row 1 .*RGB with alpha"),
        (np.zeros((8, 12, 3), np.float32), "row 1 .*received 32-bit RGB"),
        ("/etc/hostname", "row 1 .*give a pathlib.Path"),
        (7, "row 1 .*received int"),
        (b"", "row 1 .*the file is empty"),
    ],
)
def test_what_is_no_rgb_image_is_refused_with_its_row(binary, image, told):
    with pytest.raises(ValueError, match=told):
        binary.predict(pd.DataFrame({"image": [grey_image(80), image]}))


def test_a_missing_file_is_refused_with_its_row(binary, tmp_path):
    with pytest.raises(ValueError, match="row 0 .*No such file"):
        binary.predict(pd.DataFrame({"image": [tmp_path / "nothing.png"]}))


def test_many_images_are_answered_in_their_order(binary):
    brightness = [value % 256 for value in range(0, 70 * 7, 7)]  # three batches, the last a part
    answer = binary.predict(images_of(*brightness), params={"logits": True})
    expected = logits_of(*brightness)
    np.testing.assert_allclose(answer[["logit_benign", "logit_malignant"]], expected, atol=1e-5)
