"""Study files and images that are wrong, drawn by the hundred: an error each, never a crash.

``FAULT_EXAMPLES`` says how many study files and overrides are drawn: 200, in ``make faults`` 1,000.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from breakhis_search.cli.app import run_app
from breakhis_search.config import StudyConfig
from breakhis_search.data.demo import make_demo
from breakhis_search.data.images import ImageDecodeError, decode_rgb
from breakhis_search.errors import BreakhisSearchError
from breakhis_search.study_file import load_study
from breakhis_search.workflow.space_check import check_space

STUDIES = Path(__file__).resolve().parents[2] / "experiments"
WHOLE = {name: yaml.safe_load((STUDIES / name).read_text()) for name in ("binary.yaml",)}
GENERATED = settings(
    max_examples=int(os.environ.get("FAULT_EXAMPLES", "200")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1e-4", "auto", "none", "../..", "{{x}}", "*", "&a", "\x00", "ä" * 300]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a document, of sections as of leaves."""
    found = [path] if path else []
    if isinstance(document, dict):
        for key, value in document.items():
            found += places(value, (*path, key))
    return found


PLACES = places(WHOLE["binary.yaml"])


def put(document: dict[Any, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        document = document.get(key)  # type: ignore[assignment]
        if not isinstance(document, dict):
            return
    document[path[-1]] = value


def loaded(file: Path, *overrides: str) -> None:
    """Load a study: it is one, or an error says what is wrong with it."""
    try:
        study = load_study(file, overrides=overrides, check_space=check_space)
    except BreakhisSearchError as wrong:
        message = str(wrong)
    else:
        assert isinstance(study, StudyConfig)
        message = "a study"
    assert message.strip()
    assert "Traceback" not in message


@GENERATED
@given(
    changes=st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4),
    dropped=st.lists(st.sampled_from(PLACES), max_size=2),
    added=st.dictionaries(st.text(max_size=15), VALUES, max_size=2),
)
def test_a_study_file_with_wrong_values_is_an_error_or_a_study(
    tmp_path_factory, changes, dropped, added
):
    document = copy.deepcopy(WHOLE["binary.yaml"])
    for path, value in changes:
        put(document, path, value)
    for path in dropped:
        put(document, path, None)
    document |= added
    file = tmp_path_factory.getbasetemp() / "mutated.yaml"
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    loaded(file)


@GENERATED
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
@example(content=b"a: &a [*a]")
@example(content=b"? [1, 2]\n: 3")
@example(content=b"space: {1: 2}\nname: x")
@example(content=b"a: " + b"[" * 5000)
@example(
    content=b"a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    b"c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
    b"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    b"g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n"
)
def test_a_file_of_anything_is_an_error_or_a_study(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "anything.yaml"
    file.write_bytes(content)
    loaded(file)


@GENERATED
@given(
    path=st.sampled_from(PLACES),
    value=st.one_of(LEAVES.map(str), st.text(max_size=30), st.just("[1, 2"), st.just("{low: 1}")),
)
def test_an_override_of_anything_is_an_error_or_a_study(path, value):
    loaded(STUDIES / "binary.yaml", ".".join(map(str, path)) + "=" + value)


def damaged(content: bytes, rng: random.Random) -> bytes:  # noqa: PLR0911 - a list of damages
    """An image file to which one of the things was done that happen to files."""
    data = bytearray(content)
    kind = rng.randrange(8)
    if kind == 0:
        return bytes(data[: rng.randrange(len(data))])  # cut off
    if kind == 1:
        for _ in range(rng.randrange(1, 40)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    if kind == 2:
        start = rng.randrange(len(data))
        return bytes(data[:start]) + bytes(rng.randrange(200)) + bytes(data[start:])
    if kind == 3:
        data[16:24] = rng.randbytes(8)  # width and height of a PNG
        return bytes(data)
    if kind == 4:
        return rng.randbytes(rng.randrange(2000))
    if kind == 5:
        return bytes(data[:8]) + rng.randbytes(500)  # only says that it is a PNG
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    if kind == 6:
        other = [image[:, :, 0], np.dstack([image, image[:, :, 0]]), image.astype(np.uint16) * 257]
        return cv2.imencode(".png", rng.choice(other))[1].tobytes()
    return cv2.imencode(rng.choice([".jpg", ".bmp", ".webp"]), image)[1].tobytes()


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tree") / "demo"
    return make_demo(folder, images_per_slide=1, height_px=32, width_px=48)


def test_damaged_images_are_named_or_whole(tree):
    rng = random.Random(0)
    content = min(tree.rglob("*.png")).read_bytes()
    refused = 0
    for _ in range(400):
        try:
            pixels = decode_rgb(damaged(content, rng))
        except ImageDecodeError:
            refused += 1
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3
    assert refused > 200


@pytest.mark.parametrize("seed", range(6))
def test_a_tree_of_damaged_files_is_checked_without_a_traceback(
    tree, tmp_path, monkeypatch, capsys, seed
):
    rng = random.Random(seed)
    data = shutil.copytree(tree, tmp_path / "data")
    files = sorted(data.rglob("*.png"))
    for file in rng.sample(files, 60):
        kind = rng.randrange(6)
        if kind == 0:
            file.rename(file.with_name(rng.choice(["x.png", "SOB_B_A-1.png", "ü ö.png", "-.png"])))
        elif kind == 1:
            file.unlink()
            file.mkdir()
        elif kind == 2:
            file.unlink()
            file.symlink_to(rng.choice([file, data, Path("/nowhere")]))
        else:
            file.write_bytes(damaged(file.read_bytes(), rng))
    monkeypatch.setenv("BREAKHIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(STUDIES)
    assert run_app(["data", "check", "--data", str(data)]) in (0, 1)
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    search = ["run", "--study", "binary", "--workers=0", "--profile", "demo", "--data", str(data)]
    assert run_app([*search, "--set", "data.on_bad_image=fail"]) == 1
    told = capsys.readouterr()
    assert "Traceback" not in told.out + told.err
    assert told.err.startswith("error: ")
    assert not (tmp_path / "mlruns").exists(), "nothing was begun"
