"""What the parts of a pretrained backbone that do not learn say of a study's images, stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from breakhis_search.data.cache import PIXELS_VERSION
from breakhis_search.data.feature_store import StoredFeatures, open_features
from breakhis_search.data.stain import StainReference
from breakhis_search.data.views import ViewPolicy
from breakhis_search.models.features import feature_computer
from breakhis_search.models.heads import feature_width, split_at_features
from breakhis_search.models.trunk import Trunk
from breakhis_search.study.context import StudyContext
from breakhis_search.training.devices import is_out_of_memory

TRUNK_MAX_BYTES = 4 * 10**9
"""Of what a trunk says of all views of all images; above, images are trained on themselves. It is a
number of its own, so that what a study trains on is the same on every machine."""

_LAYOUT_VERSION = 1  # raise when stain, augmentation or pooling change what features are
_FEATURES = "features"


@dataclass(frozen=True)
class FeatureSource:
    """Where what is said of the images comes from: the store, or the backbone for the first time.

    Attributes:
        context: The study.
        architecture: Whose backbone; it holds its pretrained weights where it does not learn.
        images: All images as the model sees them, uint8 [n, h, w, 3].
        reference: What their stains were brought to, if to anything.
        policy: Which views.
        batch_size: Images per step.
    """

    context: StudyContext
    architecture: str
    images: Any
    reference: StainReference | None
    policy: ViewPolicy
    batch_size: int

    def of_backbone(self, model: Any) -> StoredFeatures:
        """Return the features of the whole backbone of a transfer model of ours."""
        return self._open(_FEATURES, feature_width(model), lambda: split_at_features(model)[0])

    def of_trunk(self, trunk: Trunk) -> StoredFeatures | None:
        """Return what a trunk says; ``None`` where that is more than is ever stored of one."""
        if 4 * trunk.width * len(self.policy) * len(self.images) > TRUNK_MAX_BYTES:
            return None
        return self._open(trunk.name, trunk.width, lambda: trunk.extractor)

    def _open(self, seam: str, width: int, extractor: Callable[[], Any]) -> StoredFeatures:
        context, key = self.context, self._key(seam)
        name = json.dumps(key, sort_keys=True)
        if name not in context.features:
            sha256 = context.split.table["sha256"].tolist()
            context.features[name] = open_features(
                context.settings.cache_dir,
                key,
                sha256,
                views=len(self.policy),
                width=width,
                compute=feature_computer(
                    extractor(),
                    self.images,
                    sha256,
                    self.policy,
                    batch_size=self.batch_size,
                    is_out_of_memory=is_out_of_memory,
                    progress=lambda done, total: context.observer.features_computed(
                        self._in_words(seam), done, total
                    ),
                ),
            )
        return context.features[name]

    def _in_words(self, seam: str) -> str:
        """Which part of the backbone is asked; a trunk is another one than the whole."""
        if seam == _FEATURES:
            return self.architecture
        return f"{self.architecture} up to layer {seam}"

    def _key(self, seam: str) -> dict[str, object]:
        """Everything that features depend on, beside the content of an image."""
        context = self.context
        return {
            "layout": _LAYOUT_VERSION,
            "pixels": PIXELS_VERSION,
            "keras": keras.__version__,
            "architecture": self.architecture,
            "seam": seam,
            "weights": context.weights[self.architecture].sha256,
            "image_px": list(context.input_shape[:2]),
            "views": [self.policy.levels, self.policy.per_level],
            "stain": self.reference.to_dict() if self.reference else None,
            "backend": keras.backend.backend(),
            "precision": context.device.precision,
        }
