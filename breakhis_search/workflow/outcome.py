"""What a run ends with. Light: the supervisor of workers reads it, too."""

from __future__ import annotations

from dataclasses import dataclass

from breakhis_search.comparison.registered import Registered


@dataclass(frozen=True)
class RunOutcome:
    """What a run ends with.

    Attributes:
        study: Full study name.
        objective: Name of the objective.
        is_demo: Whether all of it is synthetic.
        registered: The registered version; ``None`` when there is nothing to register.
        not_registered: Why not, in words.
        example: An image file to try the model on.
    """

    study: str
    objective: str
    is_demo: bool
    registered: Registered | None
    not_registered: str | None
    example: str
