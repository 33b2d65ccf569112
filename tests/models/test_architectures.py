from __future__ import annotations

import re

import pytest

from breakhis_search.errors import ConfigError, WeightsError
from breakhis_search.models.architectures import ARCHITECTURES, get_architecture
from breakhis_search.models.building import build_model
from breakhis_search.models.recorder import SpaceRecorder
from breakhis_search.models.weights import ResolvedWeights


def test_architectures_are_the_nine_of_the_design():
    assert list(ARCHITECTURES) == [
        "small_cnn",
        "vgg16",
        "resnet50v2",
        "densenet121",
        "efficientnetb0",
        "efficientnetv2b0",
        "mobilenet",
        "mobilenetv3large",
        "convnexttiny",
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_transfer_architectures_have_a_backbone(name: str):
    architecture = get_architecture(name)
    assert (architecture.backbone is not None) == (architecture.family == "transfer")


def test_get_architecture_of_a_class_is_foreign_without_importing_it():
    assert get_architecture("not_installed.models:MyModel").family == "foreign"


@pytest.mark.parametrize("name", ["resnet", "MobileNet", "my.module:", ":Class", "a b:c", ""])
def test_get_architecture_of_an_unknown_name_lists_the_known_ones(name: str):
    with pytest.raises(ConfigError, match=f"small_cnn, vgg16, .*received {re.escape(repr(name))}"):
        get_architecture(name)


def test_build_model_refuses_weights_of_another_architecture():
    with pytest.raises(WeightsError, match="expected mobilenet; received vgg16"):
        build_model(
            "mobilenet",
            SpaceRecorder(),
            input_shape=(64, 96, 3),
            n_classes=2,
            weights=ResolvedWeights("vgg16", "none"),
        )


@pytest.mark.parametrize("input_shape", [(31, 96, 3), (64, 16, 3), (64, 96, 1)])
def test_build_model_refuses_an_input_shape_it_cannot_use(input_shape: tuple[int, int, int]):
    with pytest.raises(ConfigError, match=r"unusable input shape.*at least 32 px"):
        build_model(
            "small_cnn",
            SpaceRecorder(),
            input_shape=input_shape,
            n_classes=2,
            weights=ResolvedWeights("small_cnn", "none"),
        )
