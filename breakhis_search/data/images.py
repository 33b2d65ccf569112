"""From the bytes of an image file to the pixels a model sees: one way for training and serving.

This file is copied as it stands into every registered model, so it imports nothing of this package.

OpenCV alone is too lenient for patients' data: depending on its version it decodes a truncated JPEG
to a picture with a grey rest, turns palettes and CMYK into three channels, and takes whole slides.
The container is therefore checked here first, byte by byte, and only a sound file reaches OpenCV.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

ImageFault = Literal["empty", "not_an_image", "truncated", "damaged", "wrong_mode", "too_large"]
"""What can be wrong with the bytes of an image file."""

MAX_PIXELS = 50_000_000
"""Largest image that is decoded, in pixels. A BreaKHis field of view has 322,000; anything beyond
this limit is a whole slide or a decompression bomb, and would take the memory of a server."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # classic and BigTIFF

_PNG_HEADER = struct.Struct(">IIBB")  # width, height, bit depth, colour type (PNG, 11.2.2 IHDR)
_PNG_RGB = 2
_PNG_MODES = {0: "grayscale", 3: "palette", 4: "grayscale with alpha", 6: "RGB with alpha"}

_TIFF_COLOURS = 262  # PhotometricInterpretation (TIFF 6.0, section 4)
_TIFF_TELLING = (0, 1, 2, 6)  # grayscale, which its channels tell; RGB; YCbCr, decoded to RGB
_TIFF_MODES = {3: "palette", 4: "mask", 5: "CMYK", 8: "CIELab"}
_MOST_TIFF_ENTRIES = 4096

_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
# Start-of-frame markers: C0-CF less C4 (Huffman tables), C8 (reserved), CC (arithmetic tables).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # these carry no length and no payload
_JPEG_FRAME = struct.Struct(">BHHB")  # precision, height, width, components (ITU T.81, B.2.2)
_JPEG_MODES = {1: "grayscale", 4: "CMYK"}


class ImageDecodeError(ValueError):
    """An image that cannot be used, with the reason in words.

    Attributes:
        fault: The reason as a word for programs.
    """

    def __init__(self, message: str, fault: ImageFault = "not_an_image") -> None:
        super().__init__(message)
        self.fault: ImageFault = fault


class _Header(NamedTuple):
    """What a file says of its picture before it is decoded."""

    width_px: int
    height_px: int
    bits: int
    mode: str | None  # None: RGB


def decode_rgb(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a PNG, JPEG or TIFF file, uint8 [height, width, 3] RGB, 0 to 255.

    Orientation tags (EXIF) are not applied: pixels come as they are stored.

    Args:
        data: The whole file.

    Raises:
        ImageDecodeError: The file is empty, no such image, truncated, damaged, larger than
            `MAX_PIXELS`, or not 8-bit RGB (grayscale, palette, alpha, CMYK, 16-bit).
    """
    _check_container(data)
    pixels = _decode_with_opencv(data)
    _check_pixels(pixels)
    _check_size(width_px=pixels.shape[1], height_px=pixels.shape[0])  # a TIFF tells only now
    return np.ascontiguousarray(pixels[:, :, ::-1])  # OpenCV gives BGR


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file, uint8 [height, width, 3] in RGB order, 0 to 255.

    Raises:
        ImageDecodeError: As `decode_rgb`, with the path before the reason.
        OSError: The file cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        return decode_rgb(data)
    except ImageDecodeError as error:
        raise ImageDecodeError(f"{path}: {error}", error.fault) from error


def resize_rgb(image: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Return the image at another size, uint8 [height_px, width_px, 3].

    Shrinking averages over areas (no aliasing of nuclei); growing interpolates linearly. The aspect
    ratio follows the size that is asked for: nothing is cropped or padded.

    Args:
        image: uint8 [height, width, 3], 0 to 255.
        height_px: Rows of the result.
        width_px: Columns of the result.

    Raises:
        ValueError: A size below one pixel, or an image of another shape or type.

    >>> resize_rgb(np.full((4, 6, 3), 200, np.uint8), 2, 3).shape
    (2, 3, 3)
    """
    _check_pixels(image)
    if 0 in image.shape:
        raise ImageDecodeError("the image has no pixels", "empty")
    if height_px < 1 or width_px < 1:
        raise ValueError(f"expected a size of at least 1 x 1 px, received {height_px} x {width_px}")
    height, width = image.shape[:2]
    shrinks = height_px <= height and width_px <= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: NDArray[np.uint8] = cv2.resize(
        image, (width_px, height_px), interpolation=interpolation
    )
    return resized


def prepare(data: bytes, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Return the model's view of an image file, uint8 [height_px, width_px, 3] RGB, 0 to 255.

    Raises:
        ImageDecodeError: As `decode_rgb`.
        ValueError: As `resize_rgb`.
    """
    return resize_rgb(decode_rgb(data), height_px, width_px)


def _check_container(data: bytes) -> None:
    """Raise unless the bytes are a whole PNG, JPEG or TIFF file of 8-bit RGB of bearable size."""
    if not data:
        raise ImageDecodeError("the file is empty (0 bytes)", "empty")
    if data.startswith(_PNG_SIGNATURE):
        _check_header(_read_png_header(data))
    elif data.startswith(_JPEG_SIGNATURE):
        _check_header(_read_jpeg_header(data))
    elif data.startswith(_TIFF_SIGNATURES):
        _check_tiff_colours(data)
    else:
        _refuse_signature(data)


def _refuse_signature(data: bytes) -> None:
    """Raise with what the first bytes show."""
    if _PNG_SIGNATURE.startswith(data[: len(_PNG_SIGNATURE)]):
        raise ImageDecodeError(f"truncated PNG: only {len(data)} bytes", "truncated")
    raise ImageDecodeError(
        f"not an image: expected PNG, JPEG or TIFF, received {len(data)} bytes that begin with "
        f"{data[:8]!r}"
    )


def _check_header(header: _Header) -> None:
    if header.mode is not None or header.bits != 8:
        raise _wrong_mode(f"{header.bits}-bit {header.mode or 'RGB'}")
    _check_size(width_px=header.width_px, height_px=header.height_px)


def _check_size(*, width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        raise ImageDecodeError(
            f"too large: {width_px} x {height_px} px, expected a field of view of at most "
            f"{MAX_PIXELS:,} pixels",
            "too_large",
        )


def _wrong_mode(received: str) -> ImageDecodeError:
    return ImageDecodeError(
        f"wrong mode: expected 8-bit RGB without alpha, received {received}", "wrong_mode"
    )


def _read_png_header(data: bytes) -> _Header:
    """Return the header of a PNG whose every chunk is whole and whose checksums hold."""
    chunks = list(_png_chunks(data))
    if chunks[-1][0] != b"IEND":
        raise ImageDecodeError("truncated PNG: its end mark (IEND) is missing", "truncated")
    kind, payload = chunks[0]
    if kind != b"IHDR" or len(payload) != 13 or all(kind != b"IDAT" for kind, _ in chunks):
        raise ImageDecodeError("damaged PNG: no header or no pixels", "damaged")
    width, height, bits, colour = _PNG_HEADER.unpack_from(payload)
    mode = None if colour == _PNG_RGB else _PNG_MODES.get(colour, f"colour type {colour}")
    return _Header(width, height, bits, mode)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield kind and payload of every chunk up to IEND; at least one, or raise."""
    view, position, kind = memoryview(data), len(_PNG_SIGNATURE), b""
    while kind != b"IEND" and (position < len(data) or not kind):
        body_end = position + 8 + int.from_bytes(view[position : position + 4], "big")
        if position + 8 > len(data) or body_end + 4 > len(data):
            raise ImageDecodeError(f"truncated PNG: it stops at byte {len(data)}", "truncated")
        kind = bytes(view[position + 4 : position + 8])
        stored = int.from_bytes(view[body_end : body_end + 4], "big")
        if zlib.crc32(view[position + 4 : body_end]) != stored:
            raise ImageDecodeError(
                f"damaged PNG: the checksum of its {kind.decode('latin-1')!r} part at byte "
                f"{position} is wrong",
                "damaged",
            )
        yield kind, view[position + 8 : body_end]
        position = body_end + 4


def _read_jpeg_header(data: bytes) -> _Header:
    """Return the header of a JPEG that reaches its end mark."""
    header: _Header | None = None
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            raise ImageDecodeError(f"damaged JPEG: no marker at byte {position}", "damaged")
        if marker == 0xFF or marker in _JPEG_BARE_MARKERS:  # fill byte, or a marker by itself
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_FRAMES and position + 10 <= len(data):
            header = _unpack_jpeg_frame(data, position + 4)
        if marker == _JPEG_SCAN and header is not None:
            # Inside the scans FF is followed by 00, so FFD9 can only be the end of the image.
            if data.rfind(_JPEG_END, position) >= 0:
                return header
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    raise ImageDecodeError("truncated JPEG: its end mark is missing", "truncated")


def _unpack_jpeg_frame(data: bytes, position: int) -> _Header:
    bits, height, width, components = _JPEG_FRAME.unpack_from(data, position)
    mode = None if components == 3 else _JPEG_MODES.get(components, f"{components} components")
    return _Header(width, height, bits, mode)


def _check_tiff_colours(data: bytes) -> None:
    """Raise where the first picture of a TIFF says that its numbers are no RGB.

    OpenCV turns palettes and CIELab into three channels without a word.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\x00", b"\x00+")
    # Tag, type and count, then the value, which for one short number begins its field.
    first, count, entry = ("8xQ", "Q", "HHQH6x") if is_big else ("4xI", "H", "HHIH2x")
    try:
        (place,) = struct.unpack_from(order + first, data)
        (entries,) = struct.unpack_from(order + count, data, place)
        place += struct.calcsize(order + count)
        for number in range(min(entries, _MOST_TIFF_ENTRIES)):
            at = place + number * struct.calcsize(order + entry)
            tag, _, _, colours = struct.unpack_from(order + entry, data, at)
            if tag == _TIFF_COLOURS and colours not in _TIFF_TELLING:
                raise _wrong_mode(_TIFF_MODES.get(colours, f"TIFF colours {colours}"))
    except struct.error as error:
        raise ImageDecodeError(f"truncated TIFF: {len(data)} bytes", "truncated") from error


def _decode_with_opencv(data: bytes) -> NDArray[Any]:
    """Return what OpenCV makes of the bytes: BGR order, channels and depth as stored."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageDecodeError(f"damaged image: {error}".strip(), "damaged") from error
    if pixels is None:
        raise ImageDecodeError("damaged or truncated image: it cannot be decoded", "damaged")
    decoded: NDArray[Any] = pixels
    return decoded


def _check_pixels(pixels: NDArray[Any]) -> None:
    """Raise unless the array is uint8 [height, width, 3]."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype == np.uint8 and channels == 3 and pixels.ndim == 3:
        return
    mode = {1: "grayscale", 3: "RGB", 4: "RGB with alpha"}.get(channels, f"{channels} channels")
    raise _wrong_mode(f"{pixels.dtype.itemsize * 8}-bit {mode}")


def _silence_opencv() -> None:
    """Keep OpenCV's own log off stderr: what is wrong with a file is said by our errors.

    OpenCV 4 and 5 keep the switch in different places; level 0 is silent in both.
    """
    set_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    set_level(0)


_silence_opencv()
