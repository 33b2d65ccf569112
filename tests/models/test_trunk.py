"""Where a backbone is cut: all that learns lies behind, and the two halves are the whole."""

from __future__ import annotations

import numpy as np
import pytest

from breakhis_search.models.building import build_model
from breakhis_search.models.heads import layers_of_head
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.trainability import set_trainable
from breakhis_search.models.trunk import cut_trunk
from breakhis_search.models.weights import ResolvedWeights

SHAPE = (64, 96, 3)
# One of a chain, one of sums, one of concatenations, one with operations that are no layers.
ARCHITECTURES = ("mobilenet", "resnet50v2", "densenet121", "convnexttiny")


def make_model(architecture: str):
    return build_model(
        architecture,
        SpaceRecorder(),
        input_shape=SHAPE,
        n_classes=2,
        weights=ResolvedWeights(architecture, "none"),
    )


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request):
    return make_model(request.param)


@pytest.mark.parametrize("part", ["last_block", "last_third"])
def test_trunk_and_tail_are_the_model_and_all_that_learns_is_in_the_tail(model, part):
    set_trainable(model, part)
    trunk = cut_trunk(model)
    assert trunk is not None
    assert trunk.extractor.trainable_variables == []
    head = layers_of_head(model)
    behind = [*trunk.tail.trainable_variables, *(v for layer in head for v in layer.variables)]
    assert {id(v) for v in model.trainable_variables} <= {id(v) for v in behind}
    images = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype(np.float32)
    activations = trunk.extractor.predict_on_batch(images)
    assert activations.shape == (2, *trunk.shape)
    values = trunk.tail(activations)
    for layer in head:
        values = layer(values)
    np.testing.assert_allclose(np.asarray(values), model.predict_on_batch(images), atol=1e-5)


def test_the_cut_is_as_late_as_it_can_be_and_as_small():
    """The padding before the twelfth block of MobileNet would only make it larger."""
    model = make_model("mobilenet")
    set_trainable(model, "last_block")
    trunk = cut_trunk(model)
    assert trunk is not None
    assert trunk.name.startswith("conv_pw_11")
    assert trunk.shape == (4, 6, 512)


def test_nothing_is_cut_where_no_layer_of_a_backbone_learns():
    model = make_model("mobilenet")
    set_trainable(model, "head")
    assert cut_trunk(model) is None
    assert cut_trunk(make_model("small_cnn")) is None
