"""Which architectures there are, as plain data, and the one function that builds any of them.

Importing this module imports no Keras: a study file can be checked against it in milliseconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from breakhis_search.errors import ConfigError
from breakhis_search.own_code import is_own_name

Family = Literal["small_cnn", "transfer", "foreign"]
Normalisation = Literal["tf", "torch", "caffe", "included"]

MIN_IMAGE_PX = 32
"""The smallest height and width every backbone of ``keras.applications`` accepts."""

_DOWNLOADS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_TF_KERNELS = "weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclass(frozen=True)
class Backbone:
    """What has to be known about one pretrained network of ``keras.applications``.

    Attributes:
        builder: Its name in ``keras.applications``.
        normalisation: What it wants of RGB in 0..255: ``tf`` (-1..1), ``torch`` (ImageNet mean and
            deviation), ``caffe`` (BGR minus the ImageNet mean) or ``included`` (its own layers).
        last_block: Layer-name prefixes of its last block: the last stage at the lowest resolution
            (its end, where that stage is more than a third of the network) and what follows it.
        weights_names: Regular expression of what a weights file for it may be called, in small
            letters and without separators (``densenet121notop``).
        weights_url: Where ``keras.applications`` downloads its ImageNet weights without the top.
        weights_hash: MD5 or SHA-256 of that file as ``keras.applications`` states it, if it does.
    """

    builder: str
    normalisation: Normalisation
    last_block: tuple[str, ...]
    weights_names: str
    weights_url: str
    weights_hash: str | None = None


@dataclass(frozen=True)
class Architecture:
    """One value of ``model/architecture``.

    Attributes:
        name: Its name in study files.
        family: Which builder makes it; ``foreign`` is any ``keras_tuner.HyperModel``.
        backbone: The pretrained network of a ``transfer`` architecture, else ``None``.
    """

    name: str
    family: Family
    backbone: Backbone | None = None


_KNOWN: tuple[Architecture, ...] = (
    Architecture("small_cnn", "small_cnn"),
    Architecture(
        "vgg16",
        "transfer",
        Backbone(
            builder="VGG16",
            normalisation="caffe",
            last_block=("block5_",),  # three convolutions at stride 16
            weights_names="vgg16",
            weights_url=f"{_DOWNLOADS}vgg16/vgg16_{_TF_KERNELS}",
            weights_hash="6d6bbae143d832006294945121d1f1fc",
        ),
    ),
    Architecture(
        "resnet50v2",
        "transfer",
        Backbone(
            builder="ResNet50V2",
            normalisation="tf",
            last_block=("conv5_", "post_"),  # three residual blocks at stride 32
            weights_names="resnet50v2",
            weights_url=f"{_DOWNLOADS}resnet/resnet50v2_{_TF_KERNELS}",
            weights_hash="fac2f116257151a9d068a22e544a4917",
        ),
    ),
    Architecture(
        "densenet121",
        "transfer",
        Backbone(
            builder="DenseNet121",
            normalisation="torch",
            last_block=("conv5_",),  # the fourth dense block, 16 layers at stride 32
            weights_names="densenet121",
            weights_url=f"{_DOWNLOADS}densenet/densenet121_{_TF_KERNELS}",
            weights_hash="30ee3e1110167f948a6b9946edeeb738",
        ),
    ),
    Architecture(
        "efficientnetb0",
        "transfer",
        Backbone(
            builder="EfficientNetB0",
            normalisation="included",
            # the one inverted residual of 320 channels, the 1280-channel convolution
            last_block=("block7", "top_"),
            weights_names="efficientnetb0",
            weights_url="https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
            weights_hash="50bc09e76180e00e4465e1a485ddc09d",
        ),
    ),
    Architecture(
        "efficientnetv2b0",
        "transfer",
        Backbone(
            builder="EfficientNetV2B0",
            normalisation="included",
            # the last two of eight inverted residuals at stride 32, the 1280-channel convolution
            last_block=("block6g", "block6h", "top_"),
            weights_names="efficientnetv2b0",
            weights_url=f"{_DOWNLOADS}efficientnet_v2/efficientnetv2-b0_notop.h5",
            weights_hash="893217f2bb855e2983157299931e43ff",
        ),
    ),
    Architecture(
        "mobilenet",
        "transfer",
        Backbone(
            builder="MobileNet",
            normalisation="tf",
            # the two separable convolutions of 1024 channels at stride 32
            last_block=("conv_dw_12", "conv_pw_12", "conv_dw_13", "conv_pw_13"),
            weights_names="mobilenet(v1)?(10(128|160|192|224))?",
            weights_url=f"{_DOWNLOADS}mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        ),
    ),
    Architecture(
        "mobilenetv3large",
        "transfer",
        Backbone(
            builder="MobileNetV3Large",
            normalisation="included",
            # three inverted residuals of 160 channels at stride 32, the 960-channel convolution
            last_block=("expanded_conv_12_", "expanded_conv_13_", "expanded_conv_14_", "conv_1"),
            weights_names="mobilenetv3large(22410)?(float)?",
            weights_url=f"{_DOWNLOADS}mobilenet_v3/"
            "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
            weights_hash="07fb09a5933dd0c8eaafa16978110389",
        ),
    ),
    Architecture(
        "convnexttiny",
        "transfer",
        Backbone(
            builder="ConvNeXtTiny",
            normalisation="included",
            # the fourth stage at stride 32 with the downsampling before it and the norm after it
            last_block=(
                "convnext_tiny_downsampling_layernorm_2",
                "convnext_tiny_downsampling_conv_2",
                "convnext_tiny_stage_3_",
                "layer_normalization",
            ),
            weights_names="convnexttiny",
            weights_url=f"{_DOWNLOADS}convnext/convnext_tiny_notop.h5",
            weights_hash="d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        ),
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({a.name: a for a in _KNOWN})
"""The architectures that come with the package, by name."""


def get_architecture(name: str) -> Architecture:
    """Return the architecture of that name, or the foreign one a ``module:Class`` names.

    The foreign module is not imported here.

    Raises:
        ConfigError: The name is neither known nor of the form ``module:Class``.

    >>> get_architecture("mobilenet").family
    'transfer'
    >>> get_architecture("keras_tuner.applications:HyperResNet").family
    'foreign'
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if is_own_name(name):
        return Architecture(name, "foreign")
    close = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=1)
    raise ConfigError(
        "unknown architecture",
        expected=f"one of {', '.join(ARCHITECTURES)}, or module:Class of a keras_tuner.HyperModel",
        received=repr(name),
        remedy=f"did you mean {close[0]!r}?" if close else "correct model/architecture",
    )
