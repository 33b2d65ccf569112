"""Pictures of where a registered classifier found reasons for its label (Grad-CAM)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data.images import read_rgb
from breakhis_search.evaluation.mistakes_pictures import blend, scale_bar
from breakhis_search.models.saliency import grad_cam

ByteArray = npt.NDArray[np.uint8]

_BORDER_PX = 8
_TEXT_WIDTH_PX = 700
"""So wide is the longest line at the scale 1 of its font; narrower pictures get smaller letters."""

_LINE_PX = 30
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def explain(
    classifier: Any, files: Sequence[Path], labels: Sequence[str], folder: Path
) -> tuple[list[str], str]:
    """Write every image beside itself with the map over it; return the files.

    The map shows what raised the score of the label that was given, at the resolution of the
    network's last feature map: regions, not nuclei. Below stands how to read it.

    Args:
        classifier: The classifier of a registered version.
        files: Images that it has answered for.
        labels: Its labels.
        folder: Where to write; made if need be.

    Returns:
        One path per image, and why there are none, in words, where the model has no usable map.

    Raises:
        OSError: One of them cannot be written.
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
        image = read_rgb(file)
        picture = beside(image, blend(image, places), label)
        _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        target.write_bytes(png.tobytes())  # OpenCV's own writing does not say when it fails
        written.append(str(target))
    return written, ""


def beside(image: ByteArray, mapped: ByteArray, label: str) -> ByteArray:
    """Return an image and the same with its map side by side, and a legend below.

    Args:
        image: uint8 [h, w, 3] RGB.
        mapped: The same with a map over it, of the same shape.
        label: What the map is about.

    Returns:
        uint8 [h + legend, 2 w + border, 3] RGB.
    """
    gap = np.full((image.shape[0], _BORDER_PX, 3), 255, dtype=np.uint8)
    pictures = np.hstack([image, gap, mapped])
    return np.vstack([pictures, _legend(pictures.shape[1], label)])


def _legend(width_px: int, label: str) -> ByteArray:
    scale = min(1.0, (width_px - 2 * _BORDER_PX) / _TEXT_WIDTH_PX)
    line = max(1, round(_LINE_PX * scale))
    legend = np.full((3 * line + 2 * _BORDER_PX, width_px, 3), 255, dtype=np.uint8)
    named = label.replace("_", " ")
    lines = (
        f"Right: what raised the score of '{named}' (Grad-CAM)",
        "",
        "from no push to the strongest in this picture; compare no two pictures",
    )
    for row, text in enumerate(lines):
        place = (_BORDER_PX, _BORDER_PX + round((row + 0.75) * line))
        cv2.putText(legend, text, place, _FONT, 0.55 * scale, (34, 34, 34), 1, cv2.LINE_AA)
    top = _BORDER_PX + line
    bar = scale_bar(max(1, line - 2), width_px - 2 * _BORDER_PX)
    legend[top : top + bar.shape[0], _BORDER_PX : _BORDER_PX + bar.shape[1]] = bar
    return legend


def _name_of(file: Path) -> str:
    """A name of the image's own, the same at every call: images of two folders may share one."""
    return f"{file.stem[:150]} {hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:6]}"
