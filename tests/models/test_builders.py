from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import keras_tuner
import numpy as np
import pytest

from breakhis_search.errors import ConfigError, WeightsError
from breakhis_search.models.architectures import ARCHITECTURES
from breakhis_search.models.building import build_model
from breakhis_search.models.heads import split_at_features
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.small_cnn import SmallCNN
from breakhis_search.models.space import declare_space
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.transfer import (
    IMAGENET_STD_RGB,
    TransferModel,
    build_backbone,
    normalise,
)
from breakhis_search.models.weights import ResolvedWeights, resolve_weights

# Keras 3.15 saves its variables through numpy in a way numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

INPUT_SHAPE = (64, 96, 3)
BACKBONES = {name: a.backbone for name, a in ARCHITECTURES.items() if a.backbone is not None}
RANDOM_MOBILENET = ResolvedWeights("mobilenet", "none")

MODULES = {
    "vgg16": "vgg16",
    "resnet50v2": "resnet_v2",
    "densenet121": "densenet",
    "efficientnetb0": "efficientnet",
    "efficientnetv2b0": "efficientnet_v2",
    "mobilenet": "mobilenet",
    "mobilenetv3large": "mobilenet_v3",
    "convnexttiny": "convnext",
}
"""Module of keras.applications with the preprocess_input of each backbone."""


def run(model: Any, images: Any, *, training: bool = False) -> Any:
    return keras.ops.convert_to_numpy(model(np.asarray(images, "float32"), training=training))


def leaves(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield from leaves(layer) if hasattr(layer, "layers") else [layer]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_model_gives_finite_float32_logits(architecture, built_model, images):
    model = built_model(architecture)
    logits = run(model, images)
    assert logits.shape == (2, 8)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert not model.compiled


def test_model_takes_uint8_images(built_model, images):
    model = built_model("small_cnn")
    np.testing.assert_array_equal(model.predict(images, verbose=0), run(model, images))


@pytest.mark.parametrize("architecture", ["small_cnn", "mobilenet"])
def test_model_builds_at_the_smallest_image(architecture):
    model = build_model(
        architecture,
        SpaceRecorder(),
        input_shape=(32, 32, 3),
        n_classes=2,
        weights=ResolvedWeights(architecture, "none"),
    )
    assert model.output_shape == (None, 2)


def test_model_under_mixed_precision_gives_float32(images):
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = SmallCNN(input_shape=INPUT_SHAPE, n_classes=2).build(SpaceRecorder())
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    dtypes = {layer.name: layer.compute_dtype for layer in model.layers}
    assert dtypes["block1_conv"] == "bfloat16"
    assert dtypes["small_cnn_features"] == dtypes["scale"] == "float32"
    assert run(model, images).dtype == np.float32


def test_builders_read_what_the_space_declared():
    hp = keras_tuner.HyperParameters()
    hp.values = {
        "model/architecture": "small_cnn",
        "small_cnn/blocks": 2,
        "small_cnn/filters": 16,
        "small_cnn/kernel_size": 5,
        "head/units": 64,
        "head/dropout_rate": 0.3,
    }
    declare_space(hp, list(ARCHITECTURES))
    declared = len(hp.space)
    model = build_model(
        "small_cnn",
        hp,
        input_shape=INPUT_SHAPE,
        n_classes=2,
        weights=ResolvedWeights("small_cnn", "none"),
    )
    assert len(hp.space) == declared
    assert model.get_layer("block2_conv").kernel.shape == (5, 5, 16, 32)
    assert model.get_layer("head_dense").units == 64
    assert model.get_layer("head_dropout").rate == 0.3
    assert "block3_conv" not in [layer.name for layer in model.layers]


def test_recorder_and_keras_tuner_see_the_same_space():
    hp, recorder = keras_tuner.HyperParameters(), SpaceRecorder()
    for either in (hp, recorder):
        declare_space(either, list(ARCHITECTURES))
    assert [p.name for p in hp.space] == list(recorder.declarations)
    assert {p.name: p.default for p in hp.space} == {
        name: d.default for name, d in recorder.declarations.items()
    }
    assert hp.values == recorder.values


def test_small_cnn_doubles_its_filters_up_to_the_cap():
    hp = keras_tuner.HyperParameters()
    hp.values = {
        "small_cnn/blocks": 5,
        "small_cnn/filters": 48,
        "small_cnn/kernel_size": 3,
    }
    model = SmallCNN(input_shape=INPUT_SHAPE, n_classes=2).build(hp)
    filters = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert filters == [48, 96, 192, 256, 256]


def test_transfer_model_of_another_family_is_refused():
    with pytest.raises(ConfigError, match="not a transfer architecture"):
        TransferModel(ResolvedWeights("small_cnn", "none"), input_shape=INPUT_SHAPE, n_classes=2)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_normalisation_equals_that_of_keras_applications(architecture, images):
    module = importlib.import_module(f"keras.applications.{MODULES[architecture]}")
    x = images.astype("float32")
    ours = normalise(keras.ops.convert_to_tensor(x), BACKBONES[architecture].normalisation)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours), module.preprocess_input(x.copy()), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("architecture", BACKBONES)
def test_backbone_normalises_itself_only_where_the_registry_says_so(architecture, built_model):
    own = (keras.layers.Rescaling, keras.layers.Normalization)
    inside = [
        leaf
        for leaf in leaves(built_model(architecture))
        if isinstance(leaf, own) and leaf.name != "scale"
    ]
    assert bool(inside) == (BACKBONES[architecture].normalisation == "included")


@pytest.mark.parametrize("architecture", BACKBONES)
def test_backbone_gives_the_same_features_in_training(architecture, built_model, images):
    extractor, _ = split_at_features(built_model(architecture))
    set_trainable(built_model(architecture), "whole")
    before = [np.array(v) for v in extractor.non_trainable_variables]
    np.testing.assert_array_equal(run(extractor, images, training=True), run(extractor, images))
    after = [np.array(v) for v in extractor.non_trainable_variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("architecture", ["small_cnn", "mobilenet"])
def test_split_at_features_gives_the_model_in_two(architecture, built_model, images):
    model = built_model(architecture)
    extractor, head = split_at_features(model)
    features = run(extractor, images)
    assert features.ndim == 2
    np.testing.assert_allclose(run(head, features), run(model, images), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_trainable_parts_nest(architecture, built_model):
    model = built_model(architecture)
    counts = [set_trainable(model, p) for p in ("head", "last_block", "last_third", "whole")]
    features = model.get_layer(f"{architecture}_features").output.shape[-1]
    assert counts[0] == (features + 1) * 8
    assert counts == sorted(set(counts))
    assert set_trainable(model, "frozen") == counts[0]


@pytest.mark.parametrize("architecture", BACKBONES)
def test_last_block_is_the_end_of_the_backbone(architecture, built_model):
    model = built_model(architecture)
    set_trainable(model, "whole")
    can_learn = [leaf.name for leaf in leaves(model) if leaf.trainable_weights]
    set_trainable(model, "last_block")
    opened = [leaf.name for leaf in leaves(model) if leaf.trainable_weights]
    assert len(opened) > 1
    assert can_learn[-len(opened) :] == opened


def test_last_third_is_a_third_of_the_layers_that_can_learn(built_model):
    model = built_model("mobilenet")
    set_trainable(model, "whole")
    can_learn = [leaf for leaf in leaves(model) if leaf.trainable_weights][:-1]
    set_trainable(model, "last_third")
    opened = [leaf for leaf in can_learn if leaf.trainable_weights]
    assert opened == can_learn[-math.ceil(len(can_learn) / 3) :]


def test_set_trainable_works_on_a_model_inside_another(built_model):
    model = built_model("mobilenet")
    expected = set_trainable(model, "last_block")
    image = keras.Input(INPUT_SHAPE)
    wrapped = keras.Model(image, model(keras.layers.RandomFlip(seed=1)(image)))
    wrapped.trainable = False
    assert set_trainable(wrapped, "last_block") == expected


def test_set_trainable_works_on_a_flattened_model(built_model, images):
    model = built_model("mobilenet")
    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    x = image = keras.Input(INPUT_SHAPE)
    for layer in [model.get_layer("scale"), *backbone.layers[1:], *model.layers[-3:]]:
        x = layer(x)
    flat = keras.Model(image, x)
    np.testing.assert_allclose(run(flat, images), run(model, images), rtol=1e-6, atol=1e-6)
    for part in ("head", "last_block", "last_third", "whole"):
        assert set_trainable(flat, part) == set_trainable(model, part)


def test_set_trainable_opens_all_of_a_small_cnn(built_model):
    model = built_model("small_cnn")
    assert set_trainable(model, "head") == set_trainable(model, "whole")
    assert all(layer.trainable for layer in model.layers)


def read_two_real_images(real_data: Path) -> Any:
    import cv2

    paths = sorted((real_data / "BreaKHis_v1").rglob("*/100X/*.png"))
    pair = [cv2.imread(str(path))[..., ::-1] for path in (paths[0], paths[-1])]
    return np.stack([cv2.resize(image, (96, 64)) for image in pair]).astype("float32")


@pytest.mark.parametrize("architecture", ["mobilenet", "densenet121"])
def test_real_weights_give_the_features_of_keras_applications(
    architecture, real_weights, real_data
):
    weights = resolve_weights(architecture, source="imagenet", weights_dir=real_weights)
    model = TransferModel(weights, input_shape=INPUT_SHAPE, n_classes=2).build(SpaceRecorder())
    extractor, _ = split_at_features(model)
    x = read_two_real_images(real_data)
    features = run(extractor, x)

    module = importlib.import_module(f"keras.applications.{MODULES[architecture]}")
    reference = getattr(keras.applications, BACKBONES[architecture].builder)(
        include_top=False, weights=str(weights.path), input_shape=INPUT_SHAPE, pooling="avg"
    )
    expected = run(reference, module.preprocess_input(x.copy()))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(features[0] - features[1]).max() > 0.1


def test_real_weights_are_those_in_the_file(real_weights):
    weights = resolve_weights("mobilenet", source="imagenet", weights_dir=real_weights)
    backbone = build_backbone(BACKBONES["mobilenet"], weights, INPUT_SHAPE)
    with h5py.File(weights.path) as file:
        stored = np.array(file["conv1/conv1/kernel:0"])
    np.testing.assert_array_equal(np.array(backbone.get_layer("conv1").kernel), stored)


def test_weights_of_another_network_are_refused(real_weights, tmp_path):
    wrong = tmp_path / "densenet121_notop.h5"
    wrong.symlink_to(next(real_weights.glob("mobilenet*")))
    weights = resolve_weights("densenet121", source="imagenet", weights_dir=tmp_path)
    with pytest.raises(WeightsError, match=r"mobilenet.* does not fit densenet121"):
        build_backbone(BACKBONES["densenet121"], weights, INPUT_SHAPE)


def keras_module(architecture: str) -> Any:
    """The module that keras.applications defines a backbone in, and takes get_file from."""
    builder = getattr(keras.applications, BACKBONES[architecture].builder)
    name = "keras.src.applications.resnet" if architecture == "resnet50v2" else builder.__module__
    return importlib.import_module(name)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_registry_states_the_download_of_keras_applications(architecture, monkeypatch):
    asked: dict[str, Any] = {}

    class Asked(Exception):  # noqa: N818 - a signal, not an error
        pass

    def get_file(name: str, url: str, **options: Any) -> None:
        asked.update(name=name, url=url, file_hash=options.get("file_hash"))
        raise Asked("for its weights")

    monkeypatch.setattr(keras_module(architecture).file_utils, "get_file", get_file)
    backbone = BACKBONES[architecture]
    with pytest.raises(Asked, match="for its weights"):
        getattr(keras.applications, backbone.builder)(
            include_top=False, weights="imagenet", input_shape=(224, 224, 3)
        )
    assert asked == {
        "name": backbone.weights_url.rsplit("/", maxsplit=1)[-1],
        "url": backbone.weights_url,
        "file_hash": backbone.weights_hash,
    }


def test_efficientnetb0_from_a_file_equals_that_of_keras_applications(
    tmp_path, monkeypatch, images
):
    rng = np.random.default_rng(0)
    source = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=INPUT_SHAPE
    )
    normalisation = next(x for x in source.layers if isinstance(x, keras.layers.Normalization))
    mean = np.array([0.485, 0.456, 0.406])
    normalisation.set_weights([mean, np.array(IMAGENET_STD_RGB) ** 2, np.array(0)])
    source.get_layer("stem_conv").kernel.assign(rng.normal(size=(3, 3, 3, 32)))
    path = tmp_path / "efficientnetb0_notop.weights.h5"
    source.save_weights(path)

    monkeypatch.setattr(
        keras_module("efficientnetb0").file_utils, "get_file", lambda *_, **__: str(path)
    )
    reference = keras.applications.EfficientNetB0(
        include_top=False, weights="imagenet", input_shape=INPUT_SHAPE
    )
    weights = ResolvedWeights("efficientnetb0", "file", path, "0" * 64)
    ours = build_backbone(BACKBONES["efficientnetb0"], weights, INPUT_SHAPE)
    expected = run(reference, images)
    np.testing.assert_allclose(run(ours, images), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(run(source, images) - expected).max() > 1e-2  # the file alone is not enough
