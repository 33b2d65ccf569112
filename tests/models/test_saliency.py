"""Grad-CAM finds what a model looks at, and leaves the model as it was."""

from __future__ import annotations

from typing import Any

import cv2
import keras
import keras_tuner
import numpy as np
import pytest
from keras import layers
from scipy.stats import rankdata

from breakhis_search.errors import ConfigError
from breakhis_search.models.building import build_model
from breakhis_search.models.foreign_graph import end_in_logits
from breakhis_search.models.heads import split_at_features
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.saliency import find_seam, grad_cam
from breakhis_search.models.small_cnn import SmallCNN
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.weights import ResolvedWeights

SIDE_PX = 64
SQUARE_PX = 20


def planted_squares(count: int, *, seed: int) -> tuple[Any, Any, Any]:
    """Noise with three squares of upright stripes; in class 1 those of one square lie.

    All squares have the same contrast: whoever only sees contrast cannot tell which one matters.
    Returns images, classes and masks of the square that matters.
    """
    rng = np.random.default_rng(seed)
    images = rng.normal(128, 20, (count, SIDE_PX, SIDE_PX, 3))
    masks = np.zeros((count, SIDE_PX, SIDE_PX), bool)
    upright = np.tile(80.0 * (np.arange(SQUARE_PX) // 2 % 2 * 2 - 1), (SQUARE_PX, 1))
    for i in range(count):
        quarters = rng.permutation([(0, 0), (0, 1), (1, 0), (1, 1)])[:3] * SIDE_PX // 2
        for number, corner in enumerate(quarters):
            row, column = corner + rng.integers(0, SIDE_PX // 2 - SQUARE_PX, 2)
            place = np.s_[i, row : row + SQUARE_PX, column : column + SQUARE_PX]
            matters = number == 0 and i % 2 == 1
            images[place] += (upright.T if matters else upright)[..., None]
            masks[place] |= matters
    return images.clip(0, 255).astype(np.uint8), np.arange(count) % 2, masks


def small_cnn(*, n_classes: int = 2, blocks: int = 2, dropout: float = 0.3) -> Any:
    hp = keras_tuner.HyperParameters()
    hp.Fixed("small_cnn/blocks", blocks)
    hp.Fixed("small_cnn/filters", 16)
    hp.Fixed("small_cnn/kernel_size", 3)
    hp.Fixed("head/units", 0)
    hp.Fixed("head/dropout_rate", dropout)
    return SmallCNN(input_shape=(SIDE_PX, SIDE_PX, 3), n_classes=n_classes).build(hp)


@pytest.fixture(scope="module")
def trained() -> Any:
    keras.utils.set_random_seed(0)
    model = small_cnn()
    images, labels, _ = planted_squares(128, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(images.astype(np.float32), labels, batch_size=32, epochs=12, verbose=0)
    return model


@pytest.fixture(scope="module")
def squares() -> tuple[Any, Any]:
    images, _, masks = planted_squares(24, seed=2)
    return images[1::2], masks[1::2]


def maps_of(model: Any, images: Any, class_index: int) -> Any:
    maps = grad_cam(model, images, np.full(len(images), class_index)).maps
    assert maps is not None
    return maps


def test_map_of_a_trained_model_hits_the_planted_square(trained, squares):
    images, masks = squares
    maps = maps_of(trained, images, 1)
    shares = (maps * masks).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    peaks = [mask.flat[each.argmax()] for each, mask in zip(maps, masks, strict=True)]
    assert masks.mean() < 0.1  # of the picture
    assert np.median(shares) > 0.6
    assert np.mean(peaks) > 0.9


def test_maps_of_randomised_weights_are_other_maps(trained, squares):
    """J. Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: model randomisation."""
    images, _ = squares
    maps = maps_of(trained, images, 1)
    correlations = []
    for seed in range(3):
        keras.utils.set_random_seed(100 + seed)
        other = maps_of(small_cnn(), images, 1)
        correlations += [rank_correlation(*pair) for pair in zip(maps, other, strict=True)]
    assert abs(np.mean(correlations)) < 0.3


def rank_correlation(one: Any, other: Any) -> float:
    """Spearman's, ties sharing a rank: much of a map is exactly 0."""
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def test_map_is_the_weighted_feature_map_where_the_head_is_linear(images):
    """After global average pooling, d logit_k / d A is w_k / (h w) everywhere: the CAM of Zhou."""
    keras.utils.set_random_seed(3)
    model = build_model(
        "small_cnn",
        SpaceRecorder(),
        input_shape=images.shape[1:],
        n_classes=8,
        weights=ResolvedWeights("small_cnn", "none"),
    )
    classes = np.array([5, 2])
    to_map = keras.Model(model.input, model.get_layer("block4_relu").output)
    # Max pooling passes the gradient to one cell of four; its mean is w_k / (h w) nevertheless.
    feature_map = np.asarray(to_map(images.astype(np.float32)))
    kernel = np.asarray(model.get_layer("logits").kernel)
    expected = np.maximum(np.einsum("nhwc,cn->nhw", feature_map, kernel[:, classes]), 0)
    result = grad_cam(model, images, classes)
    assert result.layer == "block4_relu"
    assert result.grid == (8, 12)
    np.testing.assert_allclose(result.maps, enlarged(expected, images), atol=1e-4)


def enlarged(coarse: Any, images: Any) -> Any:
    """Maps of the size of the images, the highest place of each 1."""
    size = images.shape[2], images.shape[1]
    maps = np.stack([cv2.resize(each, size, interpolation=cv2.INTER_LINEAR) for each in coarse])
    return maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)


def state_of(model: Any) -> dict[str, Any]:
    return {
        "variables": [np.array(v) for v in model.variables],
        "trainable": [layer.trainable for layer in model._flatten_layers()],
        "compiled": (model.compiled, id(model.optimizer), int(model.optimizer.iterations)),
        "nodes": [len(layer._inbound_nodes) for layer in model._flatten_layers()],
    }


def test_model_stays_as_it_was(trained, squares):
    before = state_of(trained)
    maps_of(trained, squares[0], 1)
    after = state_of(trained)
    for old, new in zip(before.pop("variables"), after.pop("variables"), strict=True):
        np.testing.assert_array_equal(old, new)
    assert before == after


def test_maps_are_the_same_twice_though_the_head_drops_out(trained, squares):
    np.testing.assert_array_equal(maps_of(trained, squares[0], 1), maps_of(trained, squares[0], 1))


def test_model_can_be_split_and_trained_afterwards(squares):
    images, labels = squares[0], np.ones(len(squares[0]))
    model = small_cnn()
    maps_of(model, images, 1)
    extractor, head = split_at_features(model)
    assert np.asarray(head(extractor(images.astype(np.float32)))).shape == (len(images), 2)
    assert find_seam(model).layer == "block2_relu"  # and the other way round
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = np.array(model.get_layer("block1_conv").kernel)
    model.train_on_batch(images.astype(np.float32), labels)
    assert (np.array(model.get_layer("block1_conv").kernel) != before).any()


def test_batches_do_not_mix(trained, squares):
    """Twelve images are more than one batch; each map is that of the image alone."""
    images = squares[0]
    maps = maps_of(trained, images, 1)
    np.testing.assert_allclose(maps[9:10], maps_of(trained, images[9:10], 1), atol=1e-5)


def test_no_images_give_no_maps(trained):
    empty = np.zeros((0, SIDE_PX, SIDE_PX, 3), np.uint8)
    assert grad_cam(trained, empty, np.zeros(0, np.int64)).maps.shape == (0, SIDE_PX, SIDE_PX)


def test_class_that_no_place_speaks_for_gives_a_map_of_zeros(squares):
    model = small_cnn()
    logits = model.get_layer("logits")
    logits.set_weights([np.full_like(logits.get_weights()[0], -1.0), np.zeros(2)])
    assert not maps_of(model, squares[0], 0).any()


@pytest.mark.parametrize(
    ("architecture", "layer", "grid"),
    [("vgg16", "block5_conv3", (4, 6)), ("mobilenet", "conv_pw_13_relu", (2, 3))],
)
def test_feature_map_is_found_inside_the_backbone(built_model, images, architecture, layer, grid):
    """Of VGG16 before its last pooling, as in the paper."""
    result = grad_cam(built_model(architecture), images, np.array([0, 7]))
    assert (result.layer, result.grid) == (layer, grid)
    assert result.maps.shape == images.shape[:3]
    assert result.maps.dtype == np.float32


def test_map_of_real_weights_is_theirs_and_leaves_them_alone(real_weights, squares):
    """The map follows from the features and the linear head, and from no other backbone."""
    file = real_weights / "mobilenet_1_0_224_tf_no_top.h5"
    if not file.is_file():
        pytest.skip(f"{file.name} is not among the weights at hand")
    images = np.stack([cv2.resize(image, (128, 128)) for image in squares[0][:4]])
    real = mobilenet(ResolvedWeights("mobilenet", "folder", path=file), images)
    set_trainable(real, "last_block")
    before, learnable = [np.array(v) for v in real.variables], len(real.trainable_variables)
    maps = maps_of(real, images, 1)
    backbone = next(layer for layer in real.layers if isinstance(layer, keras.Model))
    features = np.asarray(backbone(images / np.float32(127.5) - 1))
    kernel = np.asarray(real.get_layer("logits").kernel)
    expected = np.maximum(features @ kernel[:, 1], 0)
    np.testing.assert_allclose(maps, enlarged(expected, images), atol=1e-4)
    random = mobilenet(ResolvedWeights("mobilenet", "none"), images)
    random.get_layer("logits").set_weights(real.get_layer("logits").get_weights())
    assert abs(rank_correlation(maps, maps_of(random, images, 1))) < 0.3
    assert len(real.trainable_variables) == learnable
    for old, new in zip(before, real.variables, strict=True):
        np.testing.assert_array_equal(old, np.array(new))


def mobilenet(weights: ResolvedWeights, images: Any) -> Any:
    keras.utils.set_random_seed(1)
    return build_model(
        "mobilenet",
        SpaceRecorder(),
        input_shape=images.shape[1:],
        n_classes=2,
        weights=weights,
    )


def dense_only() -> Any:
    image = keras.Input((16, 16, 3))
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Rescaling(0.1)(image))))


def with_tokens() -> Any:
    image = keras.Input((16, 16, 3))
    tokens = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4)(image))
    mixed = layers.MultiHeadAttention(2, 4)(tokens, tokens)
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling1D()(mixed)))


def with_one_cell() -> Any:
    image = keras.Input((16, 16, 3))
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Conv2D(4, 16)(image))))


class _NoGraph(keras.Model):
    """A subclassed model."""


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (dense_only, "no convolutional layer"),
        (with_tokens, "tokens"),
        (with_one_cell, "more than one cell"),
        (_NoGraph, "no graph"),
    ],
)
def test_model_without_a_usable_map_says_why(build, reason):
    result = grad_cam(build(), np.zeros((1, 16, 16, 3), np.uint8), np.array([0]))
    assert result.maps is None
    assert reason in result.reason


def with_branches() -> Any:
    """The last map is one of two branches: the map before them is the last that all passes."""
    image = keras.Input((16, 16, 3))
    trunk = layers.Conv2D(4, 3, activation="relu", name="trunk")(image)
    branch = layers.Conv2D(4, 3, name="branch")(trunk)
    pooled = [layers.GlobalAveragePooling2D()(x) for x in (trunk, branch)]
    return keras.Model(image, layers.Dense(2)(layers.Concatenate()(pooled)))


def classic() -> Any:
    """A convolution as the last layer, after pooling to one cell, like MobileNet with its top."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="trunk")(image)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return keras.Model(image, layers.Flatten()(layers.Conv2D(2, 1)(x)))


def foreign() -> Any:
    """A Sequential with an open input size, wrapped as foreign models are."""
    trunk = layers.Conv2D(4, 3, activation="relu", name="trunk")
    pooling = layers.GlobalAveragePooling2D()
    softmax = layers.Dense(2, activation="softmax")
    inner = keras.Sequential([keras.Input((None, None, 3)), trunk, pooling, softmax])
    return end_in_logits(inner, "Foreign", (16, 16, 3))[0]


def sequential() -> Any:
    """Dropout and pooling after the map: neither is the map that is wanted."""
    trunk = layers.Conv2D(4, 3, activation="relu", name="trunk")
    end = [layers.Dropout(0.9), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)]
    return keras.Sequential([keras.Input((16, 16, 3)), trunk, *end])


@pytest.mark.parametrize("build", [with_branches, classic, foreign, sequential])
def test_map_of_other_graphs_is_the_last_that_everything_passes(build):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    result = grad_cam(build(), images, np.array([0, 1]))
    assert result.layer == "trunk"
    assert result.maps.shape == (2, 16, 16)


@pytest.mark.parametrize(
    ("images", "classes", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), [0], r"expected uint8 \[n, 64, 64, 3\]"),
        (np.zeros((1, 32, 64, 3), np.uint8), [0], "do not fit the model"),
        (np.zeros((1, 64, 64, 3), np.uint8), [2], "from 0 to 1 for each of 1 images"),
        (np.zeros((2, 64, 64, 3), np.uint8), [0], "the classes to explain do not fit"),
    ],
)
def test_what_does_not_belong_together_is_refused(trained, images, classes, message):
    with pytest.raises(ConfigError, match=message):
        grad_cam(trained, images, np.array(classes))
