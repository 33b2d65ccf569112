"""Every batch comes in its turn, from the host as from the device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from breakhis_search.training.devices import Device
from breakhis_search.training.feeding import Feeds, HostFeed, ResidentFeed

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 6, 3), dtype=np.uint8)
ROWS = np.random.default_rng(1).integers(0, 20, (7, 5))
GPU = Device("gpu", "test", "tensorflow", "float32", memory_bytes=4 * IMAGES.nbytes)


@pytest.mark.parametrize("feed", [HostFeed(lambda rows: IMAGES[rows]), ResidentFeed(IMAGES)])
def test_batches_are_those_asked_for(feed):
    batches = [np.asarray(batch) for batch in feed.batches(ROWS)]
    np.testing.assert_array_equal(np.stack(batches), IMAGES[ROWS])


def test_what_a_thread_raises_is_raised_where_the_batch_is_needed():
    def take(rows):
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        list(HostFeed(take).batches(ROWS))


def test_a_training_that_ends_early_leaves_no_thread_at_work():
    taken: list[int] = []
    batches = HostFeed(lambda rows: taken.append(1) or IMAGES[rows]).batches(ROWS)
    next(batches)
    batches.close()
    assert len(taken) <= 4


def test_images_lie_on_a_gpu_where_they_fit_and_are_brought_there_once():
    feeds = Feeds(GPU)
    assert isinstance(feeds.of(IMAGES), ResidentFeed)
    assert feeds.of(IMAGES) is feeds.of(IMAGES)
    assert isinstance(feeds.of(IMAGES.copy()), HostFeed), "a second set does not fit beside it"


def test_images_stay_on_the_host_where_they_do_not_fit_or_are_computed():
    small = dataclasses.replace(GPU, memory_bytes=IMAGES.nbytes)
    assert isinstance(Feeds(small).of(IMAGES), HostFeed)

    class View:
        def __getitem__(self, rows):
            return IMAGES[rows]

    assert isinstance(Feeds(GPU).of(View()), HostFeed)
