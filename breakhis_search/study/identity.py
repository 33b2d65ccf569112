"""What makes two studies the same: a digest of everything that decides what a score means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

from breakhis_search.config import SCHEMA_VERSION, StudyConfig

_IDENTITY_SECTIONS = {
    "task",
    "objective",
    "protocol",
    "model",
    "training",
    "space",
}
"""Budget, sampler, workers, paths and the tracking URI are not identity: they change how fast a
good model is found, not what its score means."""


def study_digest(
    config: StudyConfig,
    *,
    data_fingerprint: str,
    split_digest: str,
    weights: Mapping[str, str | None],
    own_code: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the identity of a study, sha256 hex.

    Args:
        config: The checked study.
        data_fingerprint: Of the catalog.
        split_digest: Of the split.
        weights: sha256 of the pretrained weights by architecture.
        own_code: sha256 of the user's own code by ``module:name``.
    """
    content = {
        "schema": SCHEMA_VERSION,
        "data": data_fingerprint,
        "split": split_digest,
        "weights": dict(weights),
        "magnification": config.data.magnification,
        "size_px": [config.data.height_px, config.data.width_px],
        **config.model_dump(mode="json", include=_IDENTITY_SECTIONS),
        # Stages divide the space; how the trials are shared out does not matter.
        **({"stages": True} if config.stages is not None else {}),
        **({"own_code": dict(own_code)} if own_code else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
