"""How far copies of a picture and pictures of different patients differ: the table of
docs/protocols.md, from which the limits of data/near_duplicates.py were read.

    python benchmarks/near_duplicates.py --data FOLDER_WITH_BreaKHis_v1
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from breakhis_search.data import near_duplicates
from breakhis_search.data.images import read_rgb
from breakhis_search.data.location import find_dataset_root
from breakhis_search.data.taxonomy import parse_image_name

Pixels = npt.NDArray[np.uint8]
Change = Callable[[Pixels], npt.NDArray[np.generic]]


def jpeg(quality: int) -> Change:
    def change(pixels: Pixels) -> Pixels:
        data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]

    return change


def resized(factor: float) -> Change:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda pixels: cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=how)


def cropped(share: float) -> Change:
    def change(pixels: Pixels) -> Pixels:
        rows, columns = (round(share / 2 * n) for n in pixels.shape[:2])
        return pixels[rows:-rows, columns:-columns]

    return change


COPIES: dict[str, Change] = {
    "JPEG quality 90": jpeg(90),
    "JPEG quality 50": jpeg(50),
    "JPEG quality 20": jpeg(20),
    "half the size": resized(0.5),
    "a quarter of the size": resized(0.25),
    "one and a half times the size": resized(1.5),
    "224 × 224": lambda pixels: cv2.resize(pixels, (224, 224)),
    "30 grey levels brighter": lambda pixels: np.clip(pixels.astype(int) + 30, 0, 255),
    "30 grey levels darker": lambda pixels: np.clip(pixels.astype(int) - 30, 0, 255),
    "contrast × 1.2": lambda pixels: np.clip((pixels - 128.0) * 1.2 + 128, 0, 255),
    "gamma 1.3": lambda pixels: 255 * (pixels / 255.0) ** 1.3,
    "blurred, sigma 2 px": lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 2),
    "2 % cropped": cropped(0.02),
    "5 % cropped": cropped(0.05),
}


def hash_of(pixels: npt.NDArray[np.generic]) -> np.uint64:
    return np.uint64(int(near_duplicates.perceptual_hash(_image(pixels)), 16))


def _image(pixels: npt.NDArray[np.generic]) -> Pixels:
    return np.ascontiguousarray(pixels.astype(np.uint8))


def turned_distance(pixels: Pixels, own: np.uint64) -> int:
    """Largest distance of the seven turned copies, saved as JPEG, from the variants of a hash."""
    variants = [v[0] for v in near_duplicates.eight_variants(np.array([own]))]
    distances = []
    for quarters in range(4):
        for mirrored in (False, True):
            if quarters or mirrored:
                copy = np.rot90(pixels[:, ::-1] if mirrored else pixels, quarters)
                its = hash_of(jpeg(50)(_image(copy)))
                distances.append(min(int(np.bitwise_count(its ^ v)) for v in variants))
    return max(distances)


def print_copies(pictures: list[Pixels], hashes: npt.NDArray[np.uint64]) -> None:
    for name, change in COPIES.items():
        copies = np.array([hash_of(change(picture)) for picture in pictures], dtype=np.uint64)
        print_row(name, np.bitwise_count(copies ^ hashes), near_duplicates.MAX_DISTANCE)
    turned = [turned_distance(p, h) for p, h in zip(pictures, hashes, strict=True)]
    limit = near_duplicates.MAX_DISTANCE_TURNED
    print_row("turned or mirrored, JPEG 50", np.array(turned), limit)


def print_row(name: str, distances: npt.NDArray[np.generic], limit: int) -> None:
    values = distances.astype(int)
    found = 100 * np.mean(values <= limit)
    print(f"| {name} | {np.median(values):.0f} | {values.max()} | {found:.1f} % |")


def print_patients(hashes: npt.NDArray[np.uint64], accessions: npt.NDArray[np.str_]) -> None:
    different = np.triu(accessions[:, None] != accessions[None], 1)
    variants = list(near_duplicates.eight_variants(hashes))
    upright, *turned = (
        np.bitwise_count(hashes[:, None] ^ v)[different].astype(int) for v in variants
    )
    print(f"\n{len(upright):,} pairs of different patients, upright: mean {upright.mean():.1f},")
    print(f"standard deviation {upright.std():.2f} (64 coins: 32 and 4), least {upright.min()};")
    print(f"turned: least {min(t.min() for t in turned)}")


def print_speed() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, size=7909, dtype=np.uint64)
    start = time.process_time()
    near_duplicates.find_near_duplicates([f"{b:016x}" for b in bits], [str(i) for i in range(7909)])
    print(f"\nall pairs of 7,909 pictures, eight ways: {time.process_time() - start:.1f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    files = sorted(find_dataset_root(parser.parse_args().data).rglob("SOB_*.png"))
    pictures = [read_rgb(file) for file in files]
    start = time.process_time()
    hashes = np.array([hash_of(picture) for picture in pictures], dtype=np.uint64)
    cost = 1e3 * (time.process_time() - start) / len(files)
    names = [parse_image_name(file.name) for file in files]
    print(f"{len(files)} images, {cost:.1f} ms of CPU per hash\n")
    print("| copy | median bits | most bits | found |\n|---|---|---|---|")
    print_copies(pictures, hashes)
    print_patients(hashes, np.array([name.accession for name in names if name]))
    print_speed()


if __name__ == "__main__":
    main()
