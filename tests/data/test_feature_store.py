"""The store of features: computed once, shared, verified, bounded, safe against dead writers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from breakhis_search.data import feature_store
from breakhis_search.data.eviction import writer_lock
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


def test_a_writer_that_is_interrupted_keeps_what_it_did(tmp_path, opened, backbone):
    opened(NAMES[:2])

    def dies(rows):
        yield np.ones((1, VIEWS, WIDTH), dtype=np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_features(tmp_path, {"backbone": "a"}, NAMES, views=VIEWS, width=WIDTH, compute=dies)
    # What it had computed is kept: it said 1 of the third image, where the backbone would say 2.
    assert values(opened(NAMES), NAMES) == [0, 1, 1, 3, 4, 5]
    assert backbone.asked == [*NAMES[:2], *NAMES[3:]]


def test_a_writer_that_is_killed_loses_what_it_did_since_it_last_saved(
    tmp_path, opened, backbone, monkeypatch
):
    """The process forks, and the child is killed while it computes the third image."""
    monkeypatch.setattr(feature_store, "SAVE_EVERY_S", -1.0)
    child = os.fork()
    if child == 0:

        def is_killed(rows):
            for row in rows[:2]:
                yield np.full((1, VIEWS, WIDTH), row, dtype=np.float32)
            os.kill(os.getpid(), signal.SIGKILL)

        key = {"backbone": "a"}
        open_features(tmp_path, key, NAMES, views=VIEWS, width=WIDTH, compute=is_killed)
    os.waitpid(child, 0)
    assert values(opened(NAMES), NAMES) == [0, 1, 2, 3, 4, 5]
    assert backbone.asked == NAMES[2:]


def test_what_another_process_fills_is_not_deleted(tmp_path, opened):
    opened(NAMES[:2], key="b")
    [filled] = [f.parent for f in tmp_path.rglob("features.f32")]
    os.utime(filled, (1, 1))
    with writer_lock(filled):
        opened(NAMES[:2], max_bytes=1)
        assert filled.exists()
    opened(NAMES[:2], max_bytes=1)
    assert not filled.exists()


def test_features_that_are_deleted_and_filled_anew_while_they_are_opened_are_noticed(
    opened, backbone, monkeypatch
):
    opened(NAMES[:2])
    order, memmap = [NAMES[1], NAMES[0]], np.memmap

    def lose_and_map(file, *rest, **options):
        monkeypatch.setattr(feature_store.np, "memmap", memmap)
        shutil.rmtree(file.parent)
        opened(order)  # by another process, whose study has them in another order
        return memmap(file, *rest, **options)

    monkeypatch.setattr(feature_store.np, "memmap", lose_and_map)
    assert values(opened(NAMES[:2]), NAMES[:2]) == [0, 1]
    assert backbone.asked == [*NAMES[:2], *order], "and not once more"


def test_features_stay_what_they_were_when_they_are_deleted(tmp_path, opened):
    features = opened(NAMES[:2])
    [folder] = [file.parent for file in tmp_path.rglob("features.f32")]
    shutil.rmtree(folder)
    assert values(features, NAMES[:2]) == [0, 1]


def test_who_waited_for_a_folder_that_was_deleted_makes_it_anew(tmp_path):
    """The lock it waited for is that of a file that nobody finds any more."""
    folder, got = tmp_path / "features", threading.Event()

    def waits() -> None:
        with writer_lock(folder):
            assert folder.exists()
            got.set()

    with writer_lock(folder):
        waiting = threading.Thread(target=waits)
        waiting.start()
        assert not got.wait(0.2)
        shutil.rmtree(folder)
    waiting.join(10)
    assert got.is_set()
    assert (folder / "lock").exists()


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
