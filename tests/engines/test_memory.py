"""The memory of a worker is its share of what its control group allows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from breakhis_search.engines.memory import memory_share_gb, usable_memory_gb

MACHINE_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("membership", "limits", "expected_gb"),
    [
        ("0::/\n", {"memory.max": "500000000\n"}, 0.5),
        ("0::/job/step\n", {"job/memory.max": "300000000", "job/step/memory.max": "max"}, 0.3),
        ("0::/job\n", {"memory.max": "200000000", "job/memory.max": "400000000"}, 0.2),
        ("4:cpu:/x\n9:memory:/x\n", {"memory/x/memory.limit_in_bytes": "100000000"}, 0.1),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE_GB),
        ("0::/\n", {"memory.max": str(2**63)}, MACHINE_GB),
        ("0::/../outside\n", {}, MACHINE_GB),
    ],
)
def test_the_least_limit_around_a_process_counts(tmp_path, membership, limits, expected_gb):
    for name, text in limits.items():
        put(tmp_path / "groups" / name, text)
    put(tmp_path / "membership", membership)
    found = usable_memory_gb(tmp_path / "groups", tmp_path / "membership")
    assert found == pytest.approx(expected_gb)


def test_without_control_groups_it_is_the_machines(tmp_path):
    assert usable_memory_gb(tmp_path, tmp_path / "none") == pytest.approx(MACHINE_GB)


def test_workers_share_most_of_it():
    assert memory_share_gb(2) == pytest.approx(memory_share_gb(1) / 2, rel=0.5)
    assert 0 < memory_share_gb(4) <= 0.8 * MACHINE_GB / 4
