"""What the tests of shipping and of Ray start from."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images and weights on the driver's machine, and a file that is nobody's business."""
    data = tmp_path / "data"
    (data / "BreaKHis_v1").mkdir(parents=True)
    for number in range(5):
        (data / "BreaKHis_v1" / f"{number}.png").write_bytes(bytes([number]) * 1000)
    (data / "secret.env").write_text("PASSWORD=1")
    return data
