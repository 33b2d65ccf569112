"""``predict`` on paths that can and cannot be scored, and on images its model knows nothing of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def images(searched, tmp_path_factory) -> list[Path]:
    """Two drawn pictures."""
    folder = tmp_path_factory.mktemp("images")
    return [Path(shutil.copy(f, folder)) for f in sorted(searched.demo.rglob("*.png"))[:2]]


def test_a_missing_path_is_named_and_the_others_are_scored(searched, images, capsys):
    first, second = map(str, images)
    assert searched.run("predict", "--study", "binary-demo", first, "missing.png", second) == 3
    told = capsys.readouterr().out
    assert "not scored: missing.png (it does not exist)" in told
    assert all(image.name in told for image in images)


def test_where_nothing_is_left_to_score_it_is_an_error(searched, capsys):
    assert searched.run("predict", "--study", "binary-demo", "missing.png", "nor_this.png") == 1
    told = capsys.readouterr().err
    assert "2 of 2 images could not be scored, such as missing.png (it does not exist)" in told


def doubts_of(searched, capsys, image: Path) -> list[str]:
    assert searched.run("predict", "--study", "binary-demo", str(image), "--json") == 0
    [prediction] = json.loads(capsys.readouterr().out)["predictions"]
    return prediction["doubts"]


def test_a_model_of_drawn_pictures_says_first_that_it_knows_no_tissue(searched, images, capsys):
    real = images[0].with_name("SOB_B_A-14-22549AB-100-001.png")
    shutil.copy(images[0], real)
    doubts = doubts_of(searched, capsys, real)
    assert doubts[0].startswith("the model learned from drawn pictures (the demo)")
    assert not any("sealed" in doubt for doubt in doubts)


def test_of_drawn_pictures_it_may_be_asked(searched, images, capsys):
    doubts = doubts_of(searched, capsys, images[0])
    assert not any("drawn pictures" in doubt for doubt in doubts)
