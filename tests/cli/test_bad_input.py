"""Bad input: one clear line, exit code 1, no traceback, nothing half-registered."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.data.demo import make_demo
from breakhis_search.study.storage import open_storage

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=48, width_px=72)


@pytest.fixture
def place(tmp_path, monkeypatch, pristine) -> Path:
    """A user's folder with a copy of the data in ``data``."""
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    shutil.copytree(pristine, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def error_of(capsys, *arguments: str, code: int = 1) -> str:
    """Run a command that must fail; return its one line.

    A search runs in this process: what a worker process says of it is tested once, below.
    """
    here = ["--workers=0"] if arguments[0] == "run" and "--workers" not in arguments else []
    assert run_app([*arguments, *here]) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    if code == 1:
        assert message.startswith("error: ")
    return message


def nothing_was_registered(place: Path) -> bool:
    from mlflow import MlflowClient

    database = place / "mlruns" / "mlflow.db"
    if not database.exists():
        return True
    return MlflowClient(f"sqlite:///{database}").search_registered_models() == []


def an_image(place: Path) -> Path:
    return min((place / "data").rglob("*.png"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.mkdir(), "empty"),
        (lambda p: p.write_text("x"), "file"),
        (lambda p: (p.mkdir(), (p / "other").mkdir()), "BreaKHis"),
    ],
    ids=["no path", "empty folder", "a file", "another folder"],
)
def test_data_that_is_not_there(place, capsys, make, says):
    target = place / "given"
    make(target)
    message = error_of(capsys, "run", "--study", "binary", "--data", str(target))
    assert says in message
    assert "to do:" in message
    assert nothing_was_registered(place)


@pytest.mark.parametrize(
    "command", [["run", "--study", "binary"], ["data", "check"]], ids=["run", "data check"]
)
def test_a_tree_without_images(place, capsys, command):
    for file in (place / "data").rglob("*.png"):
        file.unlink()
    message = error_of(capsys, *command)
    assert "no usable image" in message
    assert "to do:" in message
    assert nothing_was_registered(place)


def test_a_wrong_root_in_the_environment_is_an_error_not_the_demo(place, capsys, monkeypatch):
    monkeypatch.setenv("BREAKHIS_ROOT", str(place / "nowhere"))
    assert "nowhere" in error_of(capsys, "run", "--study", "binary")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def write_gray(file: Path) -> None:
    cv2.imwrite(str(file), np.zeros((48, 72), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncate, "truncated"),
        (lambda f: f.write_text("no picture"), "not an image"),
        (write_gray, "gray"),
        (lambda f: f.write_bytes(b""), "empty"),
        (lambda f: f.rename(f.with_name("SOB_X_A-14-1-100-001.png")), "name"),
    ],
    ids=["truncated", "text", "grayscale", "zero bytes", "wrong name"],
)
def test_a_bad_image_stops_the_search_and_is_named(place, capsys, spoil, says):
    spoil(an_image(place))
    message = error_of(capsys, "run", "--study", "binary")
    assert says in message.lower()
    assert "--set data.on_bad_image=skip" in message
    assert nothing_was_registered(place)


def test_data_check_names_every_problem_with_a_remedy(place, capsys):
    files = sorted((place / "data").rglob("*.png"))
    truncate(files[0])
    files[1].write_text("no picture")
    assert run_app(["data", "check"]) == 1
    out = capsys.readouterr().out
    for file in files[:2]:
        line = next(line for line in out.splitlines() if file.name in line)
        assert "to do:" in line


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("space.model/architecture=[resnet5000]", "unknown architecture"),
        ("space.model/architecture=nowhere:Model", "nowhere"),
        ("space.optimizer/learning_rate={low: 1, high: 0.1}", "low must not exceed high"),
        ("search.trails=3", "did you mean 'trials'?"),
        ("data.magnification=50", "magnification"),
        ("protocol.folds=19", "too few benign accessions for 19 folds"),
        ("protocol.kind=image", "--i-know-this-leaks"),
        ("protocol.group_by=slide", "--i-know-this-leaks"),
        ("data.magnification=", "magnification"),
    ],
)
def test_a_wrong_setting_is_named(place, capsys, override, says):
    message = error_of(capsys, "run", "--study", "binary", "--set", override)
    assert says in message
    assert nothing_was_registered(place)


def test_a_type_with_a_single_accession_is_named(place, capsys):
    for folder in (place / "data").rglob("SOB_B_A_*"):
        if "001" not in folder.name:
            shutil.rmtree(folder)
    message = error_of(capsys, "run", "--study", "multiclass")
    assert "adenosis: one accession only" in message
    assert "train_only" in message


def test_missing_weights_stop_before_the_study_starts(place, capsys):
    (place / "weights").mkdir()
    message = error_of(
        capsys, "run", "--study", "binary", "--profile", "quick", "--weights-dir", "weights"
    )
    assert "no weights file for mobilenet" in message
    assert not (place / "mlruns" / "studies.db").exists()


def test_all_missing_weights_are_named_at_once_and_what_there_is(place, capsys, real_weights):
    one = place / "weights"
    one.mkdir()
    file = "densenet121_notop.h5"
    shutil.copy(real_weights / file, one / file)
    options = ["--profile", "full", "--weights-dir", "weights"]
    message = error_of(capsys, "run", "--study", "binary", *options)
    assert "the same goes for resnet50v2, " in message
    assert "--set 'space.model/architecture=[densenet121, small_cnn]'" in message


def test_a_weights_folder_that_is_not_there_is_refused_though_the_demo_needs_none(place, capsys):
    options = ["--data", "data", "--profile", "demo", "--weights-dir", "nowhere"]
    message = error_of(capsys, "run", "--study", "binary", *options)
    assert "weights folder does not exist" in message
    assert "nowhere" in message


@pytest.mark.parametrize("study", ["nonsense", "no/such/file.yaml"])
def test_an_unknown_study_is_named(place, capsys, study):
    assert study in error_of(capsys, "run", "--study", study)


def test_a_server_that_is_down(place, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    message = error_of(capsys, "run", "--study", "binary")
    assert "http://127.0.0.1:9 does not answer" in message


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://me:secret@127.0.0.1:9/runs", "Connection refused"),
        ("mysql+pymysql://me:secret@127.0.0.1:9/runs", "driver is not installed"),
        ("postgresql+none://me:secret@127.0.0.1:9/runs", "Can't load plugin"),
    ],
)
def test_a_database_of_runs_that_cannot_be_reached(place, capsys, monkeypatch, address, told):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    message = error_of(capsys, "run", "--study", "binary")
    assert told in message
    assert "secret" not in message


def test_a_database_of_runs_that_is_none(place, capsys):
    (place / "mlruns" / "mlflow.db").mkdir(parents=True)
    assert "unable to open database file" in error_of(capsys, "run", "--study", "binary")


def test_a_store_that_cannot_be_written(place, capsys):
    (place / "mlruns").write_text("a file where a folder should be")
    assert "cannot be written" in error_of(capsys, "run", "--study", "binary")


def test_a_studies_database_that_is_none(place, capsys):
    (place / "mlruns").mkdir()
    (place / "mlruns" / "studies.db").write_text("this is no database, " * 100)
    assert "study storage" in error_of(capsys, "run", "--study", "binary")


def test_an_error_of_a_worker_process_is_one_line_too(place, capsys):
    message = error_of(capsys, "run", "--study", "binray", "--workers", "1")
    assert "binray" in message
    assert message.count("\n") == 1
    (place / "mlruns").write_text("a file where a folder should be")
    message = error_of(capsys, "run", "--study", "binary", "--workers", "1")
    assert "cannot be written" in message
    assert message.count("\n") == 1


def test_a_full_disk(place, capsys, monkeypatch):
    usage = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr("breakhis_search.data.cache.shutil.disk_usage", lambda _: usage)
    message = error_of(capsys, "run", "--study", "binary")
    assert "No space left on device" in message
    assert "BREAKHIS_CACHE" in message
    assert nothing_was_registered(place)


def test_a_port_in_use(place, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = error_of(capsys, "ui", "--port", str(port))
    assert f"port {port} cannot be used" in message
    assert "--port" in message


def test_a_gpu_that_is_not_there(place, capsys):
    message = error_of(capsys, "run", "--study", "binary", "--device", "gpu")
    assert "no GPU is visible" in message
    assert "--device cpu" in message


def test_the_full_profile_on_a_cpu_asks_first(place, capsys):
    options = ["--profile", "full", "--set", "space.model/architecture=small_cnn"]
    small = ["--set", "data.height_px=32", "--set", "data.width_px=48", "--trials", "100000"]
    assert run_app(["run", "--study", "binary", "--workers=0", *options, *small]) == 1
    out = capsys.readouterr()
    assert "estimating" in out.out
    assert "hours" in out.out
    assert "--yes" in out.err
    storage = open_storage(f"sqlite:///{place / 'mlruns' / 'studies.db'}")
    assert storage.get_all_studies() == [], "who declines leaves no study behind"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--nonsense"],
        ["nonsense"],
        ["run", "--trials", "0"],
        ["status", "--gc", "--json"],
        ["status", "--keep", "3"],
        ["status", "--yes"],
        ["replay"],
        ["replay", "--study", "binary"],
        ["replay", "0123456789abcdef", "--study", "binary", "--trial", "1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(place, capsys, arguments):
    error_of(capsys, *arguments, code=2)


@pytest.mark.parametrize(
    ("option", "says"),
    [(("--trials", "0"), "1 or more is expected"), (("--device", "tpu"), "one of auto, gpu, cpu")],
)
def test_a_wrong_option_says_what_is_expected(place, capsys, option, says):
    message = error_of(capsys, "run", *option, code=2)
    assert says in message
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("study", "says"),
    [
        ("binary@v1", "name it without its version: binary"),
        ("binary-demo@v2", "name it without -demo: binary"),
    ],
)
def test_the_full_name_of_a_study_is_no_study_file(place, capsys, study, says):
    assert says in error_of(capsys, "run", "--study", study)


@pytest.mark.parametrize(
    "command",
    [
        ["compare"],
        ["compare", "--pair", "0", "1"],
        ["compare", "--history"],
        ["compare", "--profile"],
        ["report"],
        ["card"],
        ["predict", "data"],
        ["serve"],
        ["promote"],
        ["rollback"],
        ["replay", "--trial", "0"],
    ],
    ids=" ".join,
)
def test_who_only_reads_creates_nothing_where_nothing_was_searched(place, capsys, command):
    [name, *rest] = command
    message = error_of(capsys, name, "--study", "binary", *rest)
    assert "nothing was searched in" in message
    assert "breakhis_search run" in message
    assert not (place / "mlruns").exists()


def test_outside_the_clone_the_studies_that_are_shipped_are_named(place, capsys):
    (place / "experiments").unlink()
    message = error_of(capsys, "run", "--study", "mine")
    assert "expected one of binary, multiclass" in message
    assert "give the path of a .yaml file" in message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("metrics=[nowhere:f]", "cannot import 'nowhere'; expected the module of a metric"),
        ("metrics=[os:sep]", "'os:sep' is no metric"),
        ("metrics=[math:sqrt]", "metric math:sqrt cannot be computed"),
        ("metrics=[auroc]", "module:function is expected, received auroc"),
        ("metrics=[a:f, b:f]", "several functions are called f"),
        ("space.sampling/strategy=nowhere:f", "there is no module nowhere in this folder"),
        ("space.sampling/strategy=math:sqrt", "math:sqrt cannot draw an epoch"),
        ("space.sampling/strategy=oversmaple", "unknown oversmaple; known: none, class_weights"),
        ("space.model/architecture=nowhere:Net", "there is no module nowhere in this folder"),
    ],
)
def test_code_of_ones_own_that_cannot_be_used_is_told_before_training(
    place, capsys, override, says
):
    message = error_of(capsys, "run", "--study", "binary", "--set", override)
    assert says in message
    assert not (place / "mlruns").exists()


def test_predict_takes_a_study_with_its_version(place, with_stores, capsys):
    with_stores(place)
    message = error_of(capsys, "predict", "--study", "binary@v3", str(an_image(place)))
    assert "breakhis-binary has no champion" in message
