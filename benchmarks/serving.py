"""What the registered classifier costs beside the bare network in it.

    python benchmarks/serving.py --data DIR [--architecture mobilenet] [--out FILE]

A network of random weights is packed as a registered version is, loaded by MLflow and asked about
real image files. Against it, in turns, medians of the repetitions:

* one image: ``decode + model(x)``, the network called as a function;
* many images: ``predict_on_batch`` of 32 images that lie ready in memory, and the same after each
  batch was decoded.

Prints one line of JSON and, with ``--out``, writes it to a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

BATCH = 32


def main() -> None:
    """Measure one architecture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--architecture", default="mobilenet")
    parser.add_argument("--height", type=int, default=160)
    parser.add_argument("--width", type=int, default=240)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    size = (options.height, options.width)
    found = sorted(options.data.rglob("SOB_*.png"))
    files = [found[i % len(found)].read_bytes() for i in range(options.images)]
    with tempfile.TemporaryDirectory() as folder:
        classifier = packed(options.architecture, size, Path(folder) / "model")
        result = {
            "architecture": options.architecture,
            "image_px": list(size),
            **one_image(classifier, files, size, options.repetitions),
            **many_images(classifier, files, size, options.repetitions),
        }
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def packed(architecture: str, size: tuple[int, int], folder: Path):
    """The classifier as a registered version holds it, loaded by MLflow."""
    import mlflow

    from breakhis_search.data.taxonomy import class_names
    from breakhis_search.models.building import build_model
    from breakhis_search.models.recorder import SpaceRecorder
    from breakhis_search.models.weights import ResolvedWeights
    from breakhis_search.serving.package import package_classifier

    names = class_names("binary")
    model = build_model(
        architecture,
        SpaceRecorder(),
        input_shape=(*size, 3),
        n_classes=len(names),
        weights=ResolvedWeights(architecture, "none"),
    )
    package_classifier(
        model, folder, class_names=names, height_px=size[0], width_px=size[1], metadata={}
    )
    return mlflow.pyfunc.load_model(str(folder))


def one_image(classifier, files: list[bytes], size: tuple[int, int], repetitions: int) -> dict:
    """Milliseconds of a single image, in turns with the bare network."""
    import keras

    from breakhis_search.data.images import prepare

    network = classifier.unwrap_python_model().network

    def bare(file: bytes) -> None:
        keras.ops.convert_to_numpy(network(prepare(file, *size)[None].astype(np.float32)))

    def ours(file: bytes) -> None:
        classifier.predict(pd.DataFrame({"image": [file]}))

    times = in_turns({"bare": bare, "ours": ours}, [[f] for f in files[: 10 * repetitions]])
    return {
        "one_image_ms": round(1e3 * times["ours"], 2),
        "one_image_bare_ms": round(1e3 * times["bare"], 2),
        "one_image_ratio": round(times["ours"] / times["bare"], 3),
    }


def many_images(classifier, files: list[bytes], size: tuple[int, int], repetitions: int) -> dict:
    """Images per second of many, in turns with the bare network."""
    from breakhis_search.data.images import prepare

    network = classifier.unwrap_python_model().network
    starts = range(0, len(files), BATCH)
    pixels = [prepare(file, *size) for file in files]
    ready = [np.stack(pixels[i : i + BATCH]).astype(np.float32) for i in starts]

    def bare() -> None:
        for batch in ready:
            network.predict_on_batch(batch)

    def decoding() -> None:
        for start in starts:
            decoded = [prepare(file, *size) for file in files[start : start + BATCH]]
            network.predict_on_batch(np.stack(decoded).astype(np.float32))

    def ours() -> None:
        classifier.predict(pd.DataFrame({"image": files}))

    def ours_from_pixels() -> None:
        classifier.predict(pd.DataFrame({"image": pixels}))

    ways = {"bare": bare, "decoding": decoding, "ours": ours, "ours_from_pixels": ours_from_pixels}
    times = in_turns(ways, [[]] * repetitions)
    rates = {name: len(files) / seconds for name, seconds in times.items()}
    return {
        **{f"images_per_s_{name}": round(rate, 1) for name, rate in rates.items()},
        "throughput_ratio": round(rates["ours"] / rates["bare"], 3),
        "throughput_ratio_from_pixels": round(rates["ours_from_pixels"] / rates["bare"], 3),
        "throughput_ratio_with_decoding": round(rates["ours"] / rates["decoding"], 3),
    }


def in_turns(ways: dict[str, Callable[..., None]], calls: list[list]) -> dict[str, float]:
    """Median seconds of each way, called in turns so that the machine's moods meet all alike."""
    for way in ways.values():
        way(*calls[0])  # compiles
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for arguments in calls:
        for name, way in ways.items():
            start = time.perf_counter()
            way(*arguments)
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


if __name__ == "__main__":
    main()
