"""How fast images reach a training step: the trainer's epochs against one batch that lies ready.

    python benchmarks/training_rate.py --architecture resnet50v2 --height 224 --width 336
    KERAS_BACKEND=jax python benchmarks/training_rate.py …     # on a GPU without TensorFlow

Everything of the model trains, augmentation included, in the precision that the device is best at
(bfloat16 on a recent GPU). Three rates, in turn, medians of the repetitions:

* *synthetic*: the compiled step on one constant batch in the memory of the device;
* *end to end*: epochs of the trainer on uint8 images, drawn by its sampler, each loss recorded;
* *from the host*: the same, with the images in the memory of the host, as for sets too large.

Prints one line of JSON and, with ``--out``, writes it to a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from breakhis_search.training.devices import Device, prepare_device


def main() -> None:
    """Measure one architecture at the batch sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="resnet50v2")
    parser.add_argument("--part", default="whole", help="what learns; all for small_cnn")
    parser.add_argument("--height", type=int, default=224)
    parser.add_argument("--width", type=int, default=336)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--compilations", type=Path, help="folder where JAX keeps what it compiled")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = prepare_device("auto", compilations=options.compilations)
    shape = (options.height, options.width, 3)
    images = np.random.default_rng(0).integers(0, 256, (options.images, *shape), dtype=np.uint8)
    rows = [
        measure(device, options.architecture, options.part, images, size, options.repetitions)
        for size in options.batch
    ]
    result = {
        "device": device.name,
        "backend": device.backend,
        "precision": device.precision,
        "architecture": options.architecture,
        "part": options.part,
        "image_px": [options.height, options.width],
        "images": options.images,
        "rates": rows,
    }
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(
    device: Device, architecture: str, part: str, images: np.ndarray, size: int, repetitions: int
) -> dict:
    """Return images per second of the three ways at one batch size."""
    from breakhis_search.models.building import build_model
    from breakhis_search.models.recorder import SpaceRecorder
    from breakhis_search.models.trainability import set_trainable
    from breakhis_search.models.weights import ResolvedWeights
    from breakhis_search.training.feeding import Feeds
    from breakhis_search.training.graphs import TrainingGraph
    from breakhis_search.training.probing import images_per_second

    start = time.perf_counter()
    model = build_model(
        architecture,
        SpaceRecorder(),
        input_shape=images.shape[1:],
        n_classes=2,
        weights=ResolvedWeights(architecture, "none"),
    )
    graph = TrainingGraph(model)
    if part != "all":
        set_trainable(model, part)
    built = time.perf_counter() - start
    phase = graph.phase(part, is_focal=False, turns=device.kind != "cpu")
    start = time.perf_counter()
    images_per_second(phase, images.shape[1:], size)
    compiled = time.perf_counter() - start
    feeds = {"end_to_end": Feeds(device)}
    if device.kind != "cpu":  # where both are one memory
        feeds["from_host"] = Feeds(_without_memory(device))
    rates: dict[str, list[float]] = {"synthetic": [], **{name: [] for name in feeds}}
    for _ in range(repetitions):
        steps = len(images) // size
        rates["synthetic"].append(images_per_second(phase, images.shape[1:], size, steps=steps))
        for name, feed in feeds.items():
            rates[name].append(_epoch_rate(graph, part, device, feed, images, size))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    synthetic = medians["synthetic"]
    return {
        "batch": size,
        **{f"{name}_images_per_s": round(value, 1) for name, value in medians.items()},
        **{f"{name}_share": round(medians[name] / synthetic, 4) for name in feeds},
        "step_ms": round(1e3 * size / synthetic, 2),
        "build_s": round(built, 1),
        "compile_s": round(compiled, 1),
        "all": {name: [round(value, 1) for value in values] for name, values in rates.items()},
    }


def _without_memory(device: Device) -> Device:
    from dataclasses import replace

    return replace(device, memory_bytes=0)


def _epoch_rate(graph, part, device, feeds, images, size) -> float:
    """Images per second of the epochs of a training after its first one."""
    from breakhis_search.config import TrainingConfig
    from breakhis_search.data.sampling import TrainingRows
    from breakhis_search.models.trainability import set_trainable
    from breakhis_search.training.plan import TrainingPlan
    from breakhis_search.training.results import TrainingData
    from breakhis_search.training.timing import Timer
    from breakhis_search.training.trainer import FoldTrainer

    n = len(images) // size * size
    y = np.arange(n) % 2
    names = np.full(n, "x")
    data = TrainingData(
        images, np.arange(n), TrainingRows(y, names, names), np.empty(0, int), np.empty(0, int), 2
    )
    plan = TrainingPlan(
        learning_rate=1e-4,
        weight_decay=1e-4,
        label_smoothing=0.05,
        augmentation_strength=0.5,
        sampling_strategy="none",
        trainable=None if part == "all" else part,
        backbone_learning_rate=1e-5,
    )
    trainer = FoldTrainer(
        graph,
        set_trainable=set_trainable,
        plan=plan,
        config=TrainingConfig(max_epochs=4, head_epochs=0, batch_size=size),
        device=device,
        timer=Timer(),
        feeds=feeds,
    )
    ends: list[float] = []
    trainer.fit(
        data,
        epochs=4,
        seed=0,
        on_epoch=lambda _: ends.append(time.perf_counter()),
        on_state=lambda _: None,  # where it stands is copied, as for a checkpoint
    )
    return n * (len(ends) - 1) / (ends[-1] - ends[0])


if __name__ == "__main__":
    main()
