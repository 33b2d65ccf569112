"""What a run was given, as MLflow's dataset input: named by its tags, with our own fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from breakhis_search.tracking import keys

_LONGEST_DIGEST = 36  # mlflow.utils.validation.MAX_DATASET_DIGEST_SIZE
_DESCRIBED_BY = (keys.DATA_FINGERPRINT, keys.SPLIT_DIGEST, keys.MAGNIFICATION, keys.TASK)


def dataset_name(tags: Mapping[str, str]) -> str:
    """Return the name of the images a run was given.

    >>> dataset_name({keys.MAGNIFICATION: "100", keys.DEMO: "false"})
    'breakhis-100x'
    >>> dataset_name({keys.MAGNIFICATION: "all", keys.DEMO: "true"})
    'breakhis-demo-all'
    """
    magnification = tags.get(keys.MAGNIFICATION, "all")
    suffix = f"{magnification}x" if magnification.isdigit() else magnification
    return "breakhis-" + ("demo-" if tags.get(keys.DEMO) == "true" else "") + suffix


def dataset_digest(tags: Mapping[str, str]) -> str | None:
    """Return the beginning of the catalog's fingerprint, as long as MLflow takes it, or ``None``.

    MLflow's own digests look at the first 10,000 values only.
    """
    fingerprint = tags.get(keys.DATA_FINGERPRINT)
    return fingerprint[:_LONGEST_DIGEST] if fingerprint else None


def _profile(tags: Mapping[str, str]) -> dict[str, Any]:
    """What MLflow's page of a dataset shows; ``num_rows`` is a name of its own."""
    counts = {"num_rows": keys.IMAGES, "num_patients": keys.PATIENTS}
    return {
        **{name: int(tags[key]) for name, key in counts.items() if key in tags},
        **{name: tags[name] for name in _DESCRIBED_BY if name in tags},
    }


def dataset_inputs(tags: Mapping[str, str]) -> list[Any]:
    """Return the ``mlflow.entities.DatasetInput`` of a run: one, or none without a fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = dataset_digest(tags)
    if digest is None:
        return []
    dataset = Dataset(
        name=dataset_name(tags),
        digest=digest,
        source_type="local",
        source=json.dumps({"uri": tags.get(keys.DATA_FOLDER, "")}),
        profile=json.dumps(_profile(tags)),
    )
    # The sealed test is part of the folder, but no run of a search is given it.
    return [DatasetInput(dataset, [InputTag("mlflow.data.context", "development")])]
