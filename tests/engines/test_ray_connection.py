"""A Ray cluster of this machine's own: who can reach it."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

pytest.importorskip("ray", reason="the extra ray is not installed")
pytest.importorskip("psutil", reason="it comes with ray's own dependencies, not with ours")

# In a process of its own: a cluster of other tests may run in this one.
SCRIPT = """
import json
import psutil
from breakhis_search.engines.ray_connection import connected

with connected(None) as ray:
    ray.get(ray.remote(num_cpus=0)(lambda: None).remote())  # so that a worker process is there
    this = psutil.Process()
    open_to = [
        (process.name(), connection.laddr.ip)
        for process in (this, *this.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
print(json.dumps(open_to))
"""


def test_own_cluster_listens_on_the_loopback_interface_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [(name, _plain(ip)) for name, ip in json.loads(done.stdout.splitlines()[-1])]
    assert {"gcs_server", "raylet"} <= {name for name, _ in found}
    assert [each for each in found if not each[1].is_loopback] == []


def _plain(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, as IPv4 where it is one inside IPv6: ``::ffff:127.0.0.1``."""
    address = ipaddress.ip_address(ip)
    return getattr(address, "ipv4_mapped", None) or address
