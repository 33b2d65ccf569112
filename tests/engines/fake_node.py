"""A Ray actor whose worker loads no Keras; in a module of its own, which actors can import."""

from __future__ import annotations

import os
from typing import Any

from breakhis_search.engines.ray_node import NodeOrder, RayNode
from tests.engines import fake_workers


class FakeNode(RayNode):
    """A node whose worker process does as a file in its home says."""

    def __init__(self, order: NodeOrder, source: Any) -> None:
        home = order.assignment.settings.home
        (home / f"actor-{order.assignment.number}").write_text(str(os.getpid()))
        super().__init__(order, source, getattr(fake_workers, (home / "behaviour").read_text()))
