"""Samples of the machine's use."""

from __future__ import annotations

from breakhis_search.training.system_usage import system_usage


def test_a_sample_is_within_what_a_machine_can_use():
    sample = system_usage()
    assert all(name.startswith("system/") for name in sample)
    assert 0 <= sample["system/cpu_utilization_percentage"] <= 100
    assert 0 < sample["system/system_memory_usage_percentage"] <= 100
