"""Decoding is strict and resizing is what it says."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.data import images
from breakhis_search.data.images import (
    ImageDecodeError,
    decode_rgb,
    prepare,
    read_rgb,
    resize_rgb,
)


def draw(height_px: int = 23, width_px: int = 35) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height_px, width_px, 3), np.uint8)


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    """Return a file of pixels in OpenCV's channel order."""
    return cv2.imencode(suffix, pixels)[1].tobytes()


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
    )


def png_header(width_px: int, height_px: int, bits: int = 8, colour: int = 2) -> bytes:
    payload = struct.pack(">IIBBBBB", width_px, height_px, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", payload)


def first_image(real_data: Path) -> Path:
    return min(real_data.glob("BreaKHis_v1/histology_slides/breast/benign/SOB/*/*/*/*.png"))


def test_decode_png_gives_channels_in_rgb_order() -> None:
    blue_green_red = np.zeros((4, 6, 3), np.uint8)
    blue_green_red[..., 2] = 200  # OpenCV keeps red last
    decoded = decode_rgb(encode(blue_green_red))
    assert decoded.shape == (4, 6, 3)
    assert decoded.dtype == np.uint8
    assert decoded[0, 0].tolist() == [200, 0, 0]


def test_decode_png_gives_every_pixel_as_stored() -> None:
    pixels = draw()
    assert np.array_equal(decode_rgb(encode(pixels[..., ::-1])), pixels)


def test_decoded_pixels_are_contiguous() -> None:
    assert decode_rgb(encode(draw())).flags.c_contiguous


def test_decode_tiff_gives_every_pixel_as_stored() -> None:
    pixels = draw()
    assert np.array_equal(decode_rgb(encode(pixels[..., ::-1], ".tif")), pixels)


def test_decode_jpeg_gives_nearly_the_pixels() -> None:
    pixels = np.full((16, 24, 3), (180, 90, 40), np.uint8)
    decoded = decode_rgb(encode(pixels[..., ::-1], ".jpg"))
    assert np.abs(decoded.astype(int) - pixels).max() < 4


def test_decode_empty_bytes_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="empty") as caught:
        decode_rgb(b"")
    assert caught.value.fault == "empty"


def test_decode_text_is_refused() -> None:
    with pytest.raises(
        ImageDecodeError, match="not an image: expected PNG, JPEG or TIFF"
    ) as caught:
        decode_rgb(b"<!DOCTYPE html><html>Please log in</html>")
    assert caught.value.fault == "not_an_image"


def test_decode_bitmap_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="not an image"):
        decode_rgb(encode(draw(), ".bmp"))


@pytest.mark.parametrize("kept", [1, 7, 8, 20, 33, 40, 0.3, 0.5, 0.99, -1, -4, -8, -12])
def test_decode_truncated_png_is_refused(kept: float) -> None:
    data = encode(draw())
    end = int(len(data) * kept) if isinstance(kept, float) else kept
    with pytest.raises(ImageDecodeError, match="truncated PNG") as caught:
        decode_rgb(data[:end])
    assert caught.value.fault == "truncated"


@pytest.mark.parametrize("kept", [0.5, 0.9, -2])
def test_decode_truncated_jpeg_is_refused(kept: float) -> None:
    data = encode(draw(120, 160), ".jpg")
    end = int(len(data) * kept) if isinstance(kept, float) else kept
    with pytest.raises(ImageDecodeError, match="truncated JPEG") as caught:
        decode_rgb(data[:end])
    assert caught.value.fault == "truncated"


def test_decode_truncated_jpeg_with_end_mark_in_its_thumbnail_is_refused() -> None:
    data = encode(draw(120, 160), ".jpg")
    thumbnail = b"\xff\xe1\x00\x06\xff\xd9\xff\xd9"  # an application part that holds the end mark
    with pytest.raises(ImageDecodeError, match="truncated JPEG"):
        decode_rgb(data[:2] + thumbnail + data[2:-2])


def test_decode_jpeg_with_end_mark_in_its_thumbnail_works() -> None:
    data = encode(draw(120, 160), ".jpg")
    thumbnail = b"\xff\xe1\x00\x06\xff\xd9\xff\xd9"
    assert np.array_equal(decode_rgb(data[:2] + thumbnail + data[2:]), decode_rgb(data))


def test_decode_truncated_tiff_is_refused() -> None:
    data = encode(draw(), ".tif")
    with pytest.raises(ImageDecodeError, match="truncated TIFF"):
        decode_rgb(data[: len(data) // 2])


def test_decode_png_with_a_flipped_bit_is_refused() -> None:
    data = bytearray(encode(draw()))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(
        ImageDecodeError, match=r"damaged PNG: the checksum of its 'IDAT'"
    ) as caught:
        decode_rgb(bytes(data))
    assert caught.value.fault == "damaged"


def test_decode_png_without_pixels_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="no header or no pixels"):
        decode_rgb(png_header(4, 4) + png_chunk(b"IEND", b""))


def test_decode_png_without_end_mark_is_refused() -> None:
    data = encode(draw())
    with pytest.raises(ImageDecodeError, match="end mark"):
        decode_rgb(data[: data.rindex(b"IEND") - 4])


def test_decode_png_with_fewer_rows_than_announced_is_refused() -> None:
    rows = zlib.compress(b"\x00" * (1 + 3 * 8) * 4)  # 4 of 8 rows
    data = png_header(8, 8) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageDecodeError, match="cannot be decoded"):
        decode_rgb(data)


def test_decode_png_with_bytes_behind_its_end_works() -> None:
    data = encode(draw())
    assert np.array_equal(decode_rgb(data + b"added by a mail server"), decode_rgb(data))


@pytest.mark.parametrize(
    ("pixels", "received"),
    [
        (draw()[..., 0], "8-bit grayscale"),
        (np.dstack([draw(), draw()[..., 0]]), "8-bit RGB with alpha"),
        (draw().astype(np.uint16) * 257, "16-bit RGB"),
        (draw()[..., 0].astype(np.uint16), "16-bit grayscale"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_decode_other_mode_is_refused(pixels: np.ndarray, received: str, suffix: str) -> None:
    with pytest.raises(
        ImageDecodeError, match=f"expected 8-bit RGB.*received {received}$"
    ) as caught:
        decode_rgb(encode(pixels, suffix))
    assert caught.value.fault == "wrong_mode"


def test_decode_palette_png_is_refused() -> None:
    palette = png_chunk(b"PLTE", bytes(range(6)))
    row = png_chunk(b"IDAT", zlib.compress(b"\x00\x01"))
    data = png_header(1, 1, colour=3) + palette + row + png_chunk(b"IEND", b"")
    with pytest.raises(ImageDecodeError, match="received 8-bit palette"):
        decode_rgb(data)


@pytest.mark.parametrize("signature", [b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"])
@pytest.mark.parametrize(("colours", "received"), [(3, "palette"), (8, "CIELab"), (5, "CMYK")])
def test_decode_tiff_of_other_colours_is_refused(signature, colours, received) -> None:
    """OpenCV would turn them into three channels."""
    order = "<" if signature.startswith(b"II") else ">"
    if b"+" in signature:
        header = struct.pack(order + "HHQ", 8, 0, 16)
        entries = [
            struct.pack(order + "HHQHHI", tag, 3, 1, n, 0, 0)
            for tag, n in ((256, 1), (262, colours))
        ]
        directory = struct.pack(order + "Q", len(entries)) + b"".join(entries)
    else:
        header = struct.pack(order + "I", 8)
        entries = [
            struct.pack(order + "HHIHH", tag, 3, 1, n, 0) for tag, n in ((256, 1), (262, colours))
        ]
        directory = struct.pack(order + "H", len(entries)) + b"".join(entries)
    with pytest.raises(ImageDecodeError, match=f"expected 8-bit RGB.*received {received}$"):
        decode_rgb(signature + header + directory)


def test_decode_tiff_that_stops_in_its_header_is_refused() -> None:
    data = encode(draw(), ".tif")
    for length in range(4, 8):
        with pytest.raises(ImageDecodeError, match="truncated TIFF"):
            decode_rgb(data[:length])


def test_resize_of_nothing_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="no pixels"):
        resize_rgb(np.zeros((0, 5, 3), np.uint8), 4, 4)


def test_decode_grayscale_jpeg_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="received 8-bit grayscale"):
        decode_rgb(encode(draw()[..., 0], ".jpg"))


def test_decode_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_decode_with_opencv", lambda _: pytest.fail("it was decoded"))
    data = png_header(60_000, 60_000) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")
    with pytest.raises(ImageDecodeError, match="too large: 60000 x 60000 px") as caught:
        decode_rgb(data)
    assert caught.value.fault == "too_large"


def test_decode_large_tiff_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageDecodeError, match="at most 100 pixels"):
        decode_rgb(encode(draw(), ".tif"))


def test_bad_files_leave_stderr_silent(tmp_path: Path) -> None:
    """OpenCV and the libraries below it write to the process, past Python: ask a real process."""
    png, jpeg, tiff = encode(draw()), encode(draw(99, 99), ".jpg"), encode(draw(), ".tif")
    bad = [b"", b"text", png[:-9], png[: len(png) // 2], jpeg[: len(jpeg) // 2]]
    bad += [tiff[: len(tiff) // 2], encode(draw()[..., 0])]
    for i, data in enumerate(bad):
        (tmp_path / f"{i}.bin").write_bytes(data)
    program = (
        "import sys, pathlib\n"
        "import images\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).glob('*.bin')):\n"
        "    try: images.read_rgb(file)\n"
        "    except images.ImageDecodeError: continue\n"
        "    sys.exit(f'{file} was accepted')\n"
    )
    home = Path(images.__file__).parent  # the module alone, as it lies in a registered model
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_module_imports_nothing_of_this_package() -> None:
    source = Path(images.__file__).read_text("utf-8")
    assert "from breakhis_search" not in source
    assert "import breakhis_search" not in source


def test_read_rgb_gives_the_pixels_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ünïcode name.png"
    pixels = draw()
    file.write_bytes(encode(pixels[..., ::-1]))
    assert np.array_equal(read_rgb(file), pixels)


def test_read_rgb_names_the_file_that_is_bad(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    file.write_bytes(encode(draw())[:-3])
    with pytest.raises(ImageDecodeError, match=r"cut\.png: truncated PNG") as caught:
        read_rgb(file)
    assert caught.value.fault == "truncated"


def test_read_rgb_of_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        read_rgb(tmp_path / "none.png")


def test_resize_shrinks_by_averaging() -> None:
    checkerboard = np.zeros((4, 4, 3), np.uint8)
    checkerboard[::2, ::2] = checkerboard[1::2, 1::2] = 200
    assert (resize_rgb(checkerboard, 2, 2) == 100).all()


def test_resize_grows_by_interpolating() -> None:
    ramp = np.repeat(np.array([0, 100], np.uint8)[None, :, None], 3, axis=2)
    row = resize_rgb(np.repeat(ramp, 2, axis=0), 2, 4)[0, :, 0].tolist()
    assert row == [0, 25, 75, 100]


def test_resize_to_the_same_size_keeps_every_pixel() -> None:
    pixels = draw()
    assert np.array_equal(resize_rgb(pixels, *pixels.shape[:2]), pixels)


def test_resize_takes_height_before_width() -> None:
    assert resize_rgb(draw(), 10, 40).shape == (10, 40, 3)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_resize_to_no_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 x 1 px"):
        resize_rgb(draw(), *size)


def test_resize_of_other_array_is_refused() -> None:
    with pytest.raises(ImageDecodeError, match="received 32-bit RGB"):
        resize_rgb(draw().astype(np.float32), 5, 5)


def test_prepare_decodes_and_resizes() -> None:
    data = encode(draw())
    assert np.array_equal(prepare(data, 8, 12), resize_rgb(decode_rgb(data), 8, 12))


def test_real_image_decodes_to_its_size(real_data: Path) -> None:
    image = read_rgb(first_image(real_data))
    assert image.shape in {(460, 700, 3), (456, 700, 3)}
    # Haematoxylin and eosin stain blue and pink: green is the darkest channel of a section.
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    assert green < min(red, blue)


@pytest.mark.parametrize("share", [0.0005, 0.1, 0.5, 0.9, 0.999])
def test_real_image_cut_short_is_refused(real_data: Path, share: float) -> None:
    data = first_image(real_data).read_bytes()
    with pytest.raises(ImageDecodeError, match="truncated PNG"):
        decode_rgb(data[: int(len(data) * share)])
