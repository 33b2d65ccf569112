"""Pictures of where a registered classifier found reasons for its label (Grad-CAM)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from breakhis_search.data.images import read_rgb
from breakhis_search.evaluation.mistakes_pictures import blend
from breakhis_search.models.saliency import grad_cam


def explain(
    classifier: Any, files: Sequence[Path], labels: Sequence[str], folder: Path
) -> tuple[list[str], str]:
    """Write every image with its map over it, at its own size; return the files.

    The map shows what raised the score of the label that was given, at the resolution of the
    network's last feature map: regions, not nuclei.

    Args:
        classifier: The classifier of a registered version.
        files: Images that it has answered for.
        labels: Its labels.
        folder: Where to write; made if need be.

    Returns:
        One path per image, and why there are none, in words, where the model has no usable map.
    """
    if not hasattr(classifier, "network"):
        return [""] * len(files), "this version was registered before models could be explained"
    prepared = np.stack([classifier.prepare(file.read_bytes()) for file in files])
    wanted = np.array([classifier.classes.index(label) for label in labels], dtype=np.int64)
    saliency = grad_cam(classifier.network, prepared, wanted)
    if saliency.maps is None:
        return [""] * len(files), saliency.reason
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for file, label, places in zip(files, labels, saliency.maps, strict=True):
        target = folder / f"{_name_of(file)} {label}.png"
        picture = blend(read_rgb(file), places)
        cv2.imwrite(str(target), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        written.append(str(target))
    return written, ""


def _name_of(file: Path) -> str:
    """A name of the image's own, the same at every call: images of two folders may share one."""
    return f"{file.stem} {hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:6]}"
