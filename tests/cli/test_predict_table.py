"""What ``predict`` prints: names, labels, the most probable classes, doubts in one line each."""

from __future__ import annotations

import pandas as pd
import pytest

from breakhis_search.cli.models import _answer_as_json, _print_answer
from breakhis_search.comparison.version_facts import VersionFacts
from breakhis_search.workflow.prediction import Answer

FOUR = {"adenosis": 0.30, "fibroadenoma": 0.04, "ductal_carcinoma": 0.41, "mucinous": 0.25}
TWO = {"benign": 0.6, "malignant": 0.4}


def answer(chances: dict[str, float], label: str, *paths: str, demo: bool = False) -> Answer:
    facts = VersionFacts(
        "breakhis-x", "3", ("champion",), "x@v1", "auroc", 0.8, "100", (), False, False, demo
    )
    columns = {f"probability_{name}": [value] * len(paths) for name, value in chances.items()}
    table = pd.DataFrame({"image": paths, "label": [label] * len(paths), **columns})
    doubts = dict.fromkeys(paths[:2], ("it is a plot", "it is wide"))
    return Answer(facts, table, doubts, {})


@pytest.fixture
def printed(capsys):
    def printed(*arguments, **options) -> str:
        _print_answer(answer(*arguments, **options))
        return capsys.readouterr().out

    return printed


def test_many_classes_show_the_three_most_probable(printed):
    row = printed(FOUR, "ductal_carcinoma", "/a/long/way/one.png").splitlines()[4]
    assert " ".join(row.split()) == (
        "one.png ductal_carcinoma ductal_carcinoma 0.4100 adenosis 0.3000 mucinous 0.2500"
    )


def test_two_classes_show_both(printed):
    row = printed(TWO, "benign", "/a/one.png").splitlines()[4]
    assert row.split() == ["one.png", "benign", "0.6000", "0.4000"]


def test_a_label_that_is_not_the_most_probable_class_is_explained(printed):
    assert "threshold named above" in printed(TWO, "malignant", "/a/one.png")
    assert "locked threshold" not in printed(TWO, "benign", "/a/one.png")


def test_files_of_one_name_are_told_apart_by_their_paths(printed):
    out = printed(TWO, "benign", "/a/one.png", "/b/one.png")
    assert "/a/one.png" in out
    assert "/b/one.png" in out


def test_a_doubt_about_several_images_is_one_line(printed):
    out = printed(TWO, "benign", "/a/one.png", "/a/two.png", "/a/three.png")
    assert "warning: one.png and 1 more: it is a plot\n" in out
    assert out.count("warning:") == 2


@pytest.mark.parametrize("demo", [True, False])
def test_the_demo_is_marked_and_only_the_demo(printed, demo):
    out = printed(TWO, "benign", "/a/one.png", demo=demo)
    assert out.startswith("SYNTHETIC DEMO") == demo
    assert "breakhis-x version 3 (champion): trained at 100X in x@v1" in out


def test_json_has_everything():
    told = _answer_as_json(answer(FOUR, "adenosis", "/a/long/way/one.png"))
    assert told["demo"] is False
    assert told["notice"] == "not a medical device"
    [prediction] = told["predictions"]
    assert prediction["image"] == "/a/long/way/one.png"
    assert prediction["probability_fibroadenoma"] == 0.04
    assert prediction["doubts"] == ["it is a plot", "it is wide"]
