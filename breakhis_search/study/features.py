"""The stored features of a study's images for a candidate with a pretrained backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from breakhis_search.data.feature_store import StoredFeatures, open_features
from breakhis_search.data.stain import StainReference
from breakhis_search.data.views import ViewPolicy
from breakhis_search.models.features import feature_computer
from breakhis_search.models.heads import feature_width
from breakhis_search.study.context import StudyContext

_LAYOUT_VERSION = 1  # raise when augmentation, normalisation or pooling change what features are


def stored_features(
    model: Any,
    architecture: str,
    context: StudyContext,
    images: Any,
    reference: StainReference | None,
    policy: ViewPolicy,
) -> StoredFeatures:
    """Return the features of all images of the study; computed now as far as nobody has yet.

    Args:
        model: A transfer model of ours whose backbone holds its pretrained weights.
        architecture: Its architecture.
        context: The study.
        images: All images as the model sees them, uint8 [n, h, w, 3].
        reference: What their stains were brought to, if to anything.
        policy: Which views.
    """
    key = _key(architecture, context, reference, policy)
    name = json.dumps(key, sort_keys=True)
    if name in context.features:
        return context.features[name]
    sha256 = context.split.table["sha256"].tolist()
    compute = feature_computer(
        model,
        images,
        sha256,
        policy,
        batch_size=context.config.training.batch_size,
        progress=lambda done, total: context.observer.features_computed(architecture, done, total),
    )
    context.features[name] = open_features(
        context.settings.cache_dir,
        key,
        sha256,
        views=len(policy),
        width=feature_width(model),
        compute=compute,
    )
    return context.features[name]


def _key(
    architecture: str,
    context: StudyContext,
    reference: StainReference | None,
    policy: ViewPolicy,
) -> Mapping[str, object]:
    """Everything that features depend on, beside the content of an image."""
    return {
        "layout": _LAYOUT_VERSION,
        "architecture": architecture,
        "weights": context.weights[architecture].sha256,
        "image_px": list(context.input_shape[:2]),
        "views": [policy.levels, policy.per_level],
        "stain": reference.to_dict() if reference else None,
        "backend": keras.backend.backend(),
        "precision": context.device.precision,
    }
