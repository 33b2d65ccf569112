from __future__ import annotations

from typing import Any

import keras
import keras_tuner
import numpy as np
import pytest

from breakhis_search.errors import ConfigError, TrialFailure
from breakhis_search.models.building import build_model
from breakhis_search.models.foreign import build_foreign, load_hypermodel
from breakhis_search.models.heads import split_at_features
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.weights import ResolvedWeights

INPUT_SHAPE = (64, 96, 3)


def build(name: str, hp: Any = None, **arguments: Any) -> Any:
    return build_foreign(
        name if ":" in name else f"my_hypermodels:{name}",
        hp or SpaceRecorder(),
        input_shape=INPUT_SHAPE,
        n_classes=3,
        arguments=arguments,
    )


def run(model: Any, images: Any) -> Any:
    return keras.ops.convert_to_numpy(model(np.asarray(images, "float32")))


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("HyperResNet", ("HyperResNet/optimizer", "HyperResNet/learning_rate")),
        ("HyperXception", ("HyperXception/learning_rate",)),
    ],
)
def test_keras_tuners_own_hypermodels_give_logits(name, pinned, images):
    hp = keras_tuner.HyperParameters()
    foreign = build(f"keras_tuner.applications:{name}", hp)
    logits = run(foreign.model, images)
    assert logits.shape == (2, 3)
    assert logits.dtype == np.float32
    assert not foreign.model.compiled
    assert foreign.pinned == pinned
    assert foreign.is_rescaled
    assert all(key.startswith(f"{name}/") for key in hp.values)
    assert set_trainable(foreign.model, "head") == set_trainable(foreign.model, "whole")


def test_softmax_is_taken_off_and_the_probabilities_stay(images):
    hypermodel = keras_tuner.applications.HyperXception(input_shape=INPUT_SHAPE, classes=3)
    seed = keras.utils.set_random_seed
    seed(1)
    original = hypermodel.build(keras_tuner.HyperParameters())
    seed(1)
    foreign = build("keras_tuner.applications:HyperXception")
    probabilities = run(original, images / 255)
    logits = run(foreign.model, images)
    np.testing.assert_allclose(run(keras.ops.softmax, logits), probabilities, rtol=1e-4)
    assert not np.allclose(logits.sum(axis=1), 1)


@pytest.mark.parametrize("name", ["SequentialSoftmaxLayer", "NestedSoftmax", "LinearEnd"])
def test_logits_are_no_distribution_but_their_softmax_is(name, images):
    logits = run(build(name).model, images)
    assert np.isfinite(logits).all()
    assert not np.allclose(logits.sum(axis=1), 1)


def test_nested_softmax_becomes_log_probabilities(images):
    logits = run(build("NestedSoftmax").model, images)
    np.testing.assert_allclose(np.exp(logits).sum(axis=1), 1, rtol=1e-5)


def test_model_that_scales_its_input_gets_it_raw():
    foreign = build("SequentialSoftmaxLayer")
    assert not foreign.is_rescaled
    assert "scale" not in [layer.name for layer in foreign.model.layers]


def test_own_learning_rate_is_pinned_and_not_searched():
    recorder = SpaceRecorder()
    foreign = build("SequentialSoftmaxLayer", recorder)
    assert foreign.pinned == ("SequentialSoftmaxLayer/lr",)
    kinds = {name: d.kind for name, d in recorder.declarations.items()}
    assert kinds == {"SequentialSoftmaxLayer/units": "int", "SequentialSoftmaxLayer/lr": "fixed"}


def test_build_model_passes_arguments_to_the_constructor():
    name = "my_hypermodels:NeedsMore"
    model = build_model(
        name,
        SpaceRecorder(),
        input_shape=INPUT_SHAPE,
        n_classes=3,
        weights=ResolvedWeights(name, "none"),
        foreign_arguments={"width": 5},
    )
    assert model.input_shape == (None, *INPUT_SHAPE)
    assert model.output_shape == (None, 3)


def test_missing_constructor_argument_names_where_to_give_it():
    with pytest.raises(ConfigError, match=r"cannot be constructed.*'width'.*model\.arguments"):
        build("NeedsMore")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_installed_anywhere:Model", "cannot import 'not_installed_anywhere'.*install"),
        ("my_hypermodels:Missing", "is no HyperModel.*received nothing of that name"),
        ("my_hypermodels:NotOne", "is no HyperModel.*NotOne"),
        ("my_hypermodels:keras", "is no HyperModel.*module"),
    ],
)
def test_what_is_no_hypermodel_is_refused(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_hypermodel(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OneLogit", r"no classifier of these images.*\(None, 3\).*received.*\(None, 1\)"),
        ("Subclassed", "a functional or sequential model.*a Model without a graph"),
        ("SigmoidEnd", "end of the foreign model is not understood.*received Dense sigmoid"),
    ],
)
def test_model_whose_numbers_are_no_logits_is_refused(name: str, message: str):
    with pytest.raises(ConfigError, match=message):
        build(name)


def test_lambda_fails_the_trial():
    with pytest.raises(TrialFailure, match=r"cannot be loaded safely.*received Lambda"):
        build("WithLambda")


def test_fault_of_the_builder_fails_the_trial():
    with pytest.raises(TrialFailure, match="ValueError: negative dimension size"):
        build("Breaks")


def test_foreign_model_has_no_features_to_split_at():
    with pytest.raises(ConfigError, match="LinearEnd has no seam between features and head"):
        split_at_features(build("LinearEnd").model)
