"""How long a test waits for another process before it gives up.

A machine that does much else may take minutes over what takes a second on a quiet one. Nothing
waits this long when all is well.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 600.0


def wait_until(is_so: Callable[[], bool], otherwise: str = "it did not come to pass") -> None:
    """Wait until something is so.

    Args:
        is_so: Asked again and again.
        otherwise: What the failure says when it never is.
    """
    until = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < until, otherwise
        time.sleep(0.05)
