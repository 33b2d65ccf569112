"""A model that is put together from its parts is the one that would have been written whole."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import mlflow.keras
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from breakhis_search.errors import DiskError, JournalError
from breakhis_search.settings import Settings, read_settings
from breakhis_search.tracking import keys
from breakhis_search.tracking.delivery import Delivery
from breakhis_search.tracking.journal import Journal
from breakhis_search.tracking.model_parts import parts_of, put_together
from breakhis_search.tracking.model_writer import ModelWriter, Skeleton
from breakhis_search.tracking.models import KERAS_FILE, save_keras_model
from breakhis_search.tracking.store import open_store

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EXAMPLE = np.zeros((1, 16, 24, 3), np.uint8)
NAMES = ("benign", "malignant")


def network(*, compiled: bool = False) -> keras.Model:
    """Has all that makes files differ: nesting, states that do not learn, seeds, equal values."""
    inner = keras.Sequential(
        [keras.Input((16, 24, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()],
        name="inner",
    )
    inputs = keras.Input((16, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    x = keras.layers.Dropout(0.5, name="drop", seed=1)(x)
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    if compiled:
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
    return model


def change(model: keras.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.dtype == "float32":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    model.get_layer("drop").rate = 0.1234 * seed


def write(writer: ModelWriter, model: keras.Model, folder: Path) -> None:
    writer.write(model, folder, example=EXAMPLE, class_names=NAMES)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same model as parts, and whole; no Keras put the parts together."""
    place = tmp_path_factory.mktemp("parts")
    writer, model = ModelWriter(), network()
    for turn in range(3):
        change(model, turn)
        write(writer, model, place / f"turn{turn}")
    assert [(place / f"turn{turn}").is_dir() for turn in range(3)] == [True, True, False]
    save_keras_model(model, place / "whole", example=EXAMPLE, class_names=NAMES)
    code = (
        "import sys, pathlib; from breakhis_search.tracking.model_parts import put_together;"
        f"put_together(pathlib.Path({str(place / 'turn2')!r}));"
        "sys.exit('keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return place / "turn2", place / "whole"


def test_its_files_are_those_of_a_whole_one(written):
    made, whole = written
    files = [{f.relative_to(p) for p in (folder,) for f in p.rglob("*")} for folder in written]
    assert files[0] == files[1]
    for name in files[0] - {Path("MLmodel"), Path(KERAS_FILE)}:
        if (made / name).is_file():
            assert (made / name).read_bytes() == (whole / name).read_bytes()
    facts = [yaml.safe_load((folder / "MLmodel").read_text()) for folder in written]
    own = [
        {key: fact.pop(key) for key in ("model_uuid", "utc_time_created", "model_size_bytes")}
        for fact in facts
    ]
    assert facts[0] == facts[1]
    assert own[0]["model_uuid"] != own[1]["model_uuid"]
    assert own[0]["utc_time_created"] < own[1]["utc_time_created"]
    for folder, known in zip(written, own, strict=True):
        data = sum(file.stat().st_size for file in (folder / "data").iterdir())
        assert known["model_size_bytes"] == data
    configs = []
    for folder in written:
        with zipfile.ZipFile(folder / KERAS_FILE) as archive:
            metadata = json.loads(archive.read("metadata.json"))
            assert list(metadata) == ["keras_version", "date_saved"]
            configs.append(re.sub(rb', "shared_object_id": \d+', b"", archive.read("config.json")))
    assert configs[0] == configs[1]


def test_it_answers_to_the_bit_as_a_whole_one(written):
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 24, 3)).astype("float32")
    made, whole = (mlflow.keras.load_model(str(folder)) for folder in written)
    assert made.get_layer("drop").rate == pytest.approx(0.2468)
    np.testing.assert_array_equal(made(images), whole(images))
    for one, other in zip(made.variables, whole.variables, strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


def test_finding_out_where_weights_are_saved_leaves_them_alone(tmp_path):
    writer, model = ModelWriter(), network()
    change(model, 3)
    before = [np.array(variable) for variable in model.variables]
    for turn in range(3):
        write(writer, model, tmp_path / str(turn))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1", "2.parts"]


def test_a_model_with_more_than_weights_is_always_written_whole(tmp_path, monkeypatch):
    writer, model = ModelWriter(), network(compiled=True)
    asked = []
    find = Skeleton.of
    monkeypatch.setattr(Skeleton, "of", lambda *of: asked.append(of) or find(*of))
    for turn in range(4):
        write(writer, model, tmp_path / str(turn))
    assert len(asked) == 1
    assert all((tmp_path / str(turn) / KERAS_FILE).is_file() for turn in range(4))


def test_layers_that_are_shared_are_written_as_such(tmp_path):
    shared = keras.layers.Dense(3, name="shared")
    inner = [
        keras.Sequential([keras.Input((16, 24, 3)), shared], name=name) for name in ("one", "two")
    ]
    inputs = keras.Input((16, 24, 3))
    x = keras.layers.Add()([part(inputs) for part in inner])
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    writer = ModelWriter()
    for turn in range(3):
        write(writer, model, tmp_path / str(turn))
    assert (tmp_path / "2" / KERAS_FILE).is_file()


def test_another_model_is_another_graph(tmp_path):
    writer, model = ModelWriter(), network()
    for turn in range(3):
        write(writer, model, tmp_path / str(turn))
    write(writer, network(), tmp_path / "other")
    assert (tmp_path / "other").is_dir()


def test_types_that_cannot_count_are_written_whole(tmp_path):
    model = keras.Sequential([keras.Input((16, 24, 3)), keras.layers.Dense(2, dtype="bfloat16")])
    writer = ModelWriter()
    for turn in range(3):
        write(writer, model, tmp_path / str(turn))
    assert (tmp_path / "2" / KERAS_FILE).is_file()


def test_weights_are_as_before_where_finding_out_fails(tmp_path, monkeypatch):
    writer, model = ModelWriter(), network()
    change(model, 3)
    before = [np.array(variable) for variable in model.variables]
    write(writer, model, tmp_path / "0")
    save = model.save

    def full(path: Path) -> None:
        if "marked" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path)

    monkeypatch.setattr(model, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write(writer, model, tmp_path / "1")
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


def test_half_of_one_is_made_anew_and_a_whole_one_left_alone(tmp_path):
    writer, model = ModelWriter(), network()
    for turn in range(3):
        write(writer, model, tmp_path / str(turn))
    left = tmp_path / "2.making" / "data"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    put_together(tmp_path / "2")
    assert not (tmp_path / "2" / "data" / "half").exists()
    identity = (tmp_path / "2" / "MLmodel").read_text()
    put_together(tmp_path / "2")
    assert (tmp_path / "2" / "MLmodel").read_text() == identity


def test_damaged_parts_are_named_with_the_remedy(tmp_path):
    parts_of(tmp_path / "model").write_bytes(b"PK\x03\x04 half of it")
    with pytest.raises(JournalError, match=r"model\.parts is damaged.*delete that file"):
        put_together(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# --- from a journal to MLflow -------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path, with_stores) -> Settings:
    return read_settings({}, home=with_stores(tmp_path / "home"))


@pytest.fixture
def journals(settings) -> tuple[list[Journal], keras.Model]:
    """Three finished runs with a model each, the last two in parts; and the last model."""
    writer, model, found = ModelWriter(), network(), []
    for turn in range(4):
        change(model, turn)
        journal = Journal(settings.journal_dir / f"run{turn}")
        journal.begin(name="run", tags={}, parent_uid=None, experiment="breakhis-test")
        write(writer, model, journal.place_for_model("model"))
        journal.log_model("model", tags={keys.ROLE: "fold"})
        journal.finish("FINISHED")
        found.append(journal)
    return found[1:], model


def models_in(client: MlflowClient) -> list:
    experiment = client.get_experiment_by_name("breakhis-test").experiment_id
    return client.search_logged_models([experiment], order_by=[{"field_name": "creation_time"}])


def test_parts_become_a_model_in_mlflow(settings, journals):
    client = open_store(settings)
    for journal in journals[0]:
        Delivery(client, settings).deliver(journal)
        assert not journal.models.exists()
    found = models_in(client)
    assert [str(m.status).rpartition(".")[2] for m in found] == ["READY"] * 3
    made = mlflow.keras.load_model(found[-1].artifact_location)
    images = np.random.default_rng(0).uniform(0, 255, (3, 16, 24, 3)).astype("float32")
    np.testing.assert_array_equal(made(images), journals[1](images))


def test_damaged_parts_set_their_run_aside_and_no_other(settings, journals):
    client, told = open_store(settings), []
    whole, damaged, sound = journals[0]
    parts = parts_of(damaged.models / "model")
    parts.write_bytes(parts.read_bytes()[:-1000])
    for journal in (whole, damaged, sound):
        Delivery(client, settings, complain=told.append).deliver(journal)
    assert len(told) == 1
    assert "run2 are set aside: the model" in told[0]
    assert [bool(j.set_aside_because) for j in journals[0]] == [False, True, False]
    parts.unlink()  # as the message says
    damaged.take_up()
    Delivery(client, settings).deliver(damaged)
    assert not damaged.has_undelivered
    assert len(models_in(client)) == 2


def test_a_disk_that_is_full_while_a_model_is_put_together_costs_nothing(
    settings, journals, monkeypatch
):
    def full(_folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client, journal = open_store(settings), journals[0][-1]
    with monkeypatch.context() as patch:
        patch.setattr("breakhis_search.tracking.model_parts.sync_tree", full)
        with pytest.raises(DiskError, match="No space left"):
            Delivery(client, settings).deliver(journal)
    Delivery(client, settings).deliver(journal)
    assert not journal.has_undelivered
    assert len(models_in(client)) == 1


def test_a_model_that_is_written_again_takes_the_place_of_what_was_left(settings, journals):
    journal = journals[0][-1]
    (journal.models / "model.making" / "data").mkdir(parents=True)
    (journal.models / "model.marked.keras").write_text("")
    place = journal.place_for_model("model")
    assert not place.exists()
    assert list(journal.models.iterdir()) == []
