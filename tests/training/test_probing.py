"""The batch size is doubled while that is worth it, fits, and leaves steps to learn in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from breakhis_search.config import TrainingConfig
from breakhis_search.study.batch_sizes import KeptWithStudy, batch_size_of
from breakhis_search.study.leases import Leases
from breakhis_search.study.progress import SilentObserver
from breakhis_search.training import probing
from breakhis_search.training.devices import Device
from breakhis_search.training.graphs import TrainingGraph
from breakhis_search.training.probing import find_batch_size

SHAPE = (32, 48, 3)
PLENTY = 10_000


def with_rates(monkeypatch, rates: dict[int, float]) -> list[int]:
    """Let a GPU train that many images per second; it has memory for those sizes only."""
    tried: list[int] = []

    def rate(compiled, shape, size):
        tried.append(size)
        if size not in rates:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return rates[size]

    monkeypatch.setattr(probing, "images_per_second", rate)
    return tried


@pytest.mark.parametrize(
    ("rates", "training_images", "size"),
    [
        ({32: 100, 64: 190, 128: 200, 256: 900}, PLENTY, 64),
        ({32: 100, 64: 190, 128: 300, 256: 500}, PLENTY, 256),
        ({32: 100, 64: 190}, PLENTY, 64),
        ({}, PLENTY, 32),
        ({32: 100, 64: 190, 128: 300, 256: 500}, 64 * 16, 64),
        ({32: 100, 64: 190}, 40, 32),
    ],
    ids=["not worth it", "the largest", "memory", "no memory at all", "few images", "very few"],
)
def test_the_size_is_doubled_while_it_is_worth_it(monkeypatch, rates, training_images, size):
    with_rates(monkeypatch, rates)
    assert find_batch_size(None, SHAPE, training_images=training_images) == size


def test_a_defect_is_no_lack_of_memory(monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(probing, "images_per_second", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        find_batch_size(None, SHAPE, training_images=PLENTY)


@pytest.fixture(scope="module")
def graph() -> TrainingGraph:
    from breakhis_search.models.building import build_model
    from breakhis_search.models.recorder import SpaceRecorder
    from breakhis_search.models.weights import ResolvedWeights

    weights = ResolvedWeights("small_cnn", "none")
    return TrainingGraph(
        build_model("small_cnn", SpaceRecorder(), input_shape=SHAPE, n_classes=2, weights=weights)
    )


def context_of(kind: str, batch_size: int | str, sizes, cache=None) -> SimpleNamespace:
    return SimpleNamespace(
        settings=SimpleNamespace(cache_dir=cache),
        config=SimpleNamespace(
            training=TrainingConfig(max_epochs=2, head_epochs=1, batch_size=batch_size)
        ),
        device=Device(kind, "test", "tensorflow", "float32"),
        split=SimpleNamespace(folds=[SimpleNamespace(train=np.arange(PLENTY))]),
        input_shape=SHAPE,
        observer=SilentObserver(),
        batch_sizes=sizes,
        uid="of-a-study",
        leases=Leases(f"sqlite:///{cache}.db") if cache else None,
    )


def test_a_study_probes_an_architecture_once_and_its_weights_stay(graph, monkeypatch, tmp_path):
    tried = with_rates(monkeypatch, {32: 100.0, 64: 300.0, 128: 301.0})
    study = optuna.create_study()
    before = [np.array(v) for v in graph.core.variables]
    context = context_of("gpu", "auto", KeptWithStudy(study), tmp_path / "here")
    assert batch_size_of("small_cnn", graph, context) == 64
    again = context_of("gpu", "auto", KeptWithStudy(study), tmp_path / "elsewhere")
    assert batch_size_of("small_cnn", graph, again) == 64
    assert tried == [32, 64, 128]
    assert dict(KeptWithStudy(study)) == {"small_cnn": 64}
    for variable, value in zip(graph.core.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_a_machine_is_probed_once_for_all_studies(graph, monkeypatch, tmp_path):
    tried = with_rates(monkeypatch, {32: 100.0, 64: 300.0, 128: 301.0})
    for _ in range(2):
        assert batch_size_of("small_cnn", graph, context_of("gpu", "auto", {}, tmp_path)) == 64
    assert tried == [32, 64, 128]
    (tmp_path / "batch_sizes.json").write_text("half a fi")
    assert batch_size_of("small_cnn", graph, context_of("gpu", "auto", {}, tmp_path)) == 64
    assert tried == [32, 64, 128] * 2, "what can't be read is found anew"


@pytest.mark.parametrize(("kind", "wanted", "size"), [("cpu", "auto", 32), ("gpu", 48, 48)])
def test_nothing_is_probed_on_a_cpu_or_where_a_number_is_given(graph, kind, wanted, size):
    assert batch_size_of("small_cnn", graph, context_of(kind, wanted, {})) == size


def test_images_per_second_are_measured(graph):
    assert probing.images_per_second(graph.probe(), SHAPE, 8) > 0
