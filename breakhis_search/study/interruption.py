"""Ctrl-C at the wrong moment."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Self


class HeldInterrupt:
    """Holds Ctrl-C back during a ``with`` block; :meth:`strike` lets it through afterwards.

    Outside the main thread, where Ctrl-C never arrives, it does nothing.
    """

    def __init__(self) -> None:
        self._came = False
        self._handler: object = None

    def __enter__(self) -> Self:
        """Start holding it back."""
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        """Let the next one through at once."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)  # type: ignore[arg-type]

    def strike(self) -> None:
        """Raise the ``KeyboardInterrupt`` that came during the block, if one did."""
        if self._came:
            raise KeyboardInterrupt

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
