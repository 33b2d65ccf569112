"""The store of features: computed once, shared, verified, bounded, safe against dead writers."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from breakhis_search.data.feature_store import open_features
from breakhis_search.errors import DataError

VIEWS, WIDTH = 2, 3
NAMES = [f"{n:064x}" for n in range(6)]


class Backbone:
    """Counts what it is asked to compute; the features of an image are its number."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def of(self, names):
        def compute(rows):
            for row in rows:
                self.asked.append(names[row])
                yield np.full((1, VIEWS, WIDTH), int(names[row], 16), dtype=np.float32)

        return compute


@pytest.fixture
def backbone():
    return Backbone()


@pytest.fixture
def opened(tmp_path, backbone):
    """Open the features of some images."""

    def open_(names, key="a", **options):
        return open_features(
            tmp_path,
            {"backbone": key},
            names,
            views=VIEWS,
            width=WIDTH,
            compute=backbone.of(names),
            **options,
        )

    return open_


def values(features, names):
    taken = features.take(np.arange(len(names)), 1)
    assert taken.shape == (len(names), WIDTH)
    return taken[:, 0].astype(int).tolist()


def test_features_are_computed_once_and_come_in_the_order_of_the_images(opened, backbone):
    assert values(opened(NAMES[:4]), NAMES[:4]) == [0, 1, 2, 3]
    mixed = [NAMES[3], NAMES[5], NAMES[0]]
    assert values(opened(mixed), mixed) == [3, 5, 0]
    assert backbone.asked == [*NAMES[:4], NAMES[5]]


def test_an_image_that_occurs_twice_is_computed_once(opened, backbone):
    twice = [NAMES[1], NAMES[2], NAMES[1]]
    assert values(opened(twice), twice) == [1, 2, 1]
    assert backbone.asked == NAMES[1:3]


def test_other_keys_share_nothing(opened, backbone):
    opened(NAMES[:2])
    opened(NAMES[:2], key="b")
    assert backbone.asked == NAMES[:2] * 2


def test_a_writer_that_dies_leaves_nothing_that_counts(tmp_path, opened, backbone):
    opened(NAMES[:2])

    def dies(rows):
        yield np.ones((1, VIEWS, WIDTH), dtype=np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_features(tmp_path, {"backbone": "a"}, NAMES, views=VIEWS, width=WIDTH, compute=dies)
    assert values(opened(NAMES), NAMES) == [0, 1, 2, 3, 4, 5]
    assert backbone.asked == NAMES


def test_changed_bytes_are_noticed_and_computed_again(tmp_path, opened, backbone):
    opened(NAMES[:3])
    [file] = tmp_path.rglob("features.f32")
    content = bytearray(file.read_bytes())
    content[4 * VIEWS * WIDTH] ^= 1
    file.write_bytes(content)
    assert values(opened(NAMES[:3]), NAMES[:3]) == [0, 1, 2]
    assert backbone.asked == [*NAMES[:3], NAMES[1]]


def test_a_file_cut_short_is_noticed_and_mended(tmp_path, opened):
    opened(NAMES[:3])
    [file] = tmp_path.rglob("features.f32")
    os.truncate(file, 4 * VIEWS * WIDTH + 5)
    assert values(opened(NAMES[:3]), NAMES[:3]) == [0, 1, 2]


def test_two_writers_at_once_compute_each_image_once(opened, backbone):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: values(opened(NAMES), NAMES), range(4)))
    assert found == [[0, 1, 2, 3, 4, 5]] * 4
    assert sorted(backbone.asked) == NAMES


def test_the_least_recently_used_features_are_deleted(tmp_path, opened, backbone):
    one = opened(NAMES[:2])
    os.utime(next(tmp_path.rglob("features.f32")).parent, (1, 1))
    opened(NAMES[:2], key="b", max_bytes=400)
    assert len(list(tmp_path.rglob("features.f32"))) == 1
    assert values(one, NAMES[:2]) == [0, 1], "a map that is open stays valid"
    opened(NAMES[:2], max_bytes=400)
    assert backbone.asked == NAMES[:2] * 3


def test_the_key_is_written_beside_the_features(tmp_path, opened):
    opened(NAMES[:1])
    [file] = tmp_path.rglob("key.json")
    assert json.loads(file.read_text()) == {"backbone": "a"}


def test_a_full_disk_is_told(opened, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DataError, match="set BREAKHIS_CACHE to another folder"):
        opened(NAMES[:1])
