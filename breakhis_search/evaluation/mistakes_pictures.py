"""Pictures and Grad-CAM maps as the data URIs of an HTML page."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data.images import resize_rgb

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

PICTURE_WIDTH_PX = 410
PICTURES_BYTES = 620_000
"""Room for the JPEGs of a page that, with 4.8 MB of plotly.js, is to stay below 6 MB."""

JPEG_QUALITIES = (85, 75, 65, 50, 35)
"""Tried from the left until all pictures fit; 24 fields of view fit at 75 or 85."""

MAP_WIDTH_PX = 64
"""Width of an embedded map: several times the cells of any feature map; browsers smooth it."""

MAP_OPACITY = 0.75
"""Of the strongest place; low places stay nearly clear, so that the tissue shows."""


@dataclass(frozen=True)
class Picture:
    """A picture ready for the page."""

    uri: str
    width_px: int
    height_px: int


def encode_pictures(images: list[ByteArray]) -> list[Picture]:
    """Return the pictures as JPEGs of the best quality at which all of them fit the page."""
    small = [_shrink(image) for image in images]
    encoded: list[bytes] = []
    for quality in JPEG_QUALITIES:
        encoded = [_encode(".jpg", image, cv2.IMWRITE_JPEG_QUALITY, quality) for image in small]
        if sum(map(len, encoded)) <= PICTURES_BYTES:
            break
    return [
        Picture(_uri("image/jpeg", data), width_px=image.shape[1], height_px=image.shape[0])
        for data, image in zip(encoded, small, strict=True)
    ]


def _shrink(image: ByteArray) -> ByteArray:
    height, width = image.shape[:2]
    if width <= PICTURE_WIDTH_PX:
        return image
    return resize_rgb(image, max(1, round(height * PICTURE_WIDTH_PX / width)), PICTURE_WIDTH_PX)


def map_uri(places: FloatArray) -> str:
    """Return a map as a PNG whose colours and opacity rise with its values."""
    height, width = places.shape
    size = (MAP_WIDTH_PX, max(1, round(height * MAP_WIDTH_PX / width)))
    small = cv2.resize(places.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return _uri("image/png", _encode(".png", _colour(small)))


def blend(image: ByteArray, places: FloatArray) -> ByteArray:
    """Return an image with a map over it, uint8 [h, w, 3] RGB, of the image's own size.

    Args:
        image: uint8 [h, w, 3] RGB.
        places: float32 [h', w'] in [0, 1], of the whole image at any size.
    """
    height, width = image.shape[:2]
    grown = cv2.resize(places.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    colour = _colour(grown).astype(np.float32)
    opacity = colour[..., 3:] / 255
    mixed = opacity * colour[..., :3] + (1 - opacity) * image
    return np.rint(mixed).astype(np.uint8)


def _colour(values: FloatArray) -> ByteArray:
    """Return colour and opacity of values in [0, 1], uint8 [..., 4] RGBA.

    Viridis: its lightness rises evenly, so it can be read without colour vision, and its blue to
    yellow differs from the pink and violet of the stain.
    """
    levels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    bgr = cv2.applyColorMap(levels.reshape(-1, 1), cv2.COLORMAP_VIRIDIS).reshape(*levels.shape, 3)
    # More than in proportion, so that places of little push keep the colours of their stain.
    opacity = np.rint(255 * MAP_OPACITY * (levels / 255) ** 1.5).astype(np.uint8)
    return np.concatenate([bgr[..., ::-1], opacity[..., None]], axis=-1)


def map_gradient() -> str:
    """Return the colours of the maps as a CSS gradient, from no push to the strongest."""
    stops = [
        f"rgba({r},{g},{b},{alpha / 255:.2f})"
        for r, g, b, alpha in _colour(np.linspace(0, 1, 9, dtype=np.float32)).tolist()
    ]
    return f"linear-gradient(to right,{','.join(stops)})"


def scale_bar(height_px: int, width_px: int) -> ByteArray:
    """Return the colours of the maps on white, from no push to the strongest, uint8 [h, w, 3]."""
    white = np.full((height_px, width_px, 3), 255, dtype=np.uint8)
    return blend(white, np.tile(np.linspace(0, 1, width_px, dtype=np.float32), (height_px, 1)))


def _encode(ending: str, pixels: ByteArray, *options: int) -> bytes:
    """Return RGB or RGBA pixels as the bytes of an image file."""
    to_opencv = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    _, data = cv2.imencode(ending, cv2.cvtColor(pixels, to_opencv), options)
    return bytes(data)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
