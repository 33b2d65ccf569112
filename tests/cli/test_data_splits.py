"""`data splits` prints sealed patients, folds, digest and leaks, of images or of names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from breakhis_search.cli.app import run_app
from breakhis_search.data.demo import make_demo
from breakhis_search.data.official_files import TEXT_NAMES

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder without data."""
    (tmp_path / "experiments").symlink_to(EXPERIMENTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    for name in ("MLFLOW_TRACKING_URI", "BREAKHIS_STUDIES_URI", "BREAKHIS_ROOT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def full_list(place: Path, names_7909: list[str]) -> Path:
    file = place / "names.txt"
    file.write_text("\n".join(names_7909) + "\n")
    return file


def splits(capsys, *arguments: str, code: int = 0) -> str:
    """What `data splits` prints on the stream its exit code asks for."""
    assert run_app(["data", "splits", *arguments]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.err if code else printed.out


def test_full_list_prints_the_documented_split(full_list, capsys):
    text = splits(capsys, "--study", "binary", "--names", str(full_list))
    assert "split db666dc77a29865b2a5bc2fe64ee69da52b8d5b1770ec08080e08b311df67b9e" in text
    assert "sealed test: 14-14015, 14-15570" in text
    assert "fold 2 validates: 14-11520" in text
    assert "note: no sealed patient has: adenosis" in text
    assert "note: few patients are sealed (3 benign): what the test says of such a class" in text


def test_json_is_nothing_but_json_and_complete(full_list, capsys):
    text = splits(capsys, "--study", "multiclass", "--names", str(full_list), "--json")
    report = json.loads(text)
    assert report["formulation"] == "MIM"
    assert len(report["sealed"]) == report["accessions"]["sealed test"]["all"] == 13
    assert [len(fold["validation"]) for fold in report["folds"]] == [20, 19, 17]
    assert report["images"]["all"]["all"] == 7663
    assert len(report["digest"]) == 64


def test_override_changes_the_split(full_list, capsys):
    arguments = ["--study", "binary", "--names", str(full_list), "--json"]
    plain = json.loads(splits(capsys, *arguments))
    other = json.loads(splits(capsys, *arguments, "--set", "protocol.folds=5"))
    assert (len(plain["folds"]), len(other["folds"])) == (3, 5)
    assert plain["digest"] != other["digest"]
    assert plain["sealed"] == other["sealed"]


def test_images_print_the_split_of_a_run(place, capsys):
    make_demo(place / "data", images_per_slide=1, height_px=48, width_px=72)
    report = json.loads(splits(capsys, "--study", "binary", "--data", "data", "--json"))
    assert report["source"].endswith("images (--data)")
    assert report["images"]["all"]["all"] == sum(
        report["images"][side]["all"]
        for side in ("sealed test", "fold 0 training", "fold 0 validation")
    )


def test_official_folds_beside_the_list_are_used_and_their_leaks_told(full_list, capsys):
    names = full_list.read_text().split()
    for number, file in enumerate(TEXT_NAMES, start=1):
        folders = sorted({n.rsplit("-", 2)[0] for n in names})
        test = set(folders[number - 1 :: 3])
        lines = [
            f"{n}|{n.split('-')[-2]}|{number}|{'test' if n.rsplit('-', 2)[0] in test else 'train'}"
            for n in names
        ]
        (full_list.parent / file).write_text("\n".join(lines) + "\n")
    official = ["--study", "binary", "--names", str(full_list), "--set", "protocol.kind=official"]
    report = json.loads(splits(capsys, *official, "--json"))
    assert report["sealed"] == []
    assert "fold 4 official test" in report["images"]
    [leaks] = [n for n in report["notes"] if n.startswith("patients on both sides")]
    assert "official fold 1: 14-" in leaks


def test_official_protocol_without_its_files_says_where_to_get_them(full_list, capsys):
    arguments = ["--study", "binary", "--names", str(full_list), "--set", "protocol.kind=official"]
    message = splits(capsys, *arguments, code=1)
    assert message.startswith("error: protocol.kind: official needs the official folds")
    assert "mkfold.tar.gz" in message


def test_names_that_are_none_are_an_error(place, capsys):
    (place / "names.txt").write_text("cat.png\n")
    message = splits(capsys, "--study", "binary", "--names", "names.txt", code=1)
    assert "a list of file names cannot be used" in message


def test_list_that_is_not_there_is_an_error(place, capsys):
    message = splits(capsys, "--study", "binary", "--names", "none.txt", code=1)
    assert "the list of names none.txt cannot be read" in message


def test_data_and_names_exclude_each_other(place, capsys):
    message = splits(capsys, "--study", "binary", "--names", "a", "--data", "b", code=2)
    assert "exclude each other" in message
