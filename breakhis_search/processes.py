"""How this program starts processes of its own."""

from __future__ import annotations

import multiprocessing

CONTEXT = multiprocessing.get_context("spawn")
"""Every one is begun anew: threads and CUDA do not survive a fork."""
