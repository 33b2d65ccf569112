"""What a study notes of its finalists and its refit. Light: ``status`` reads it, too."""

from __future__ import annotations

FINALIST = "finalist/"
"""User attributes of a study that begin so, and end with the number of a trial, hold what is known
of that trial as a finalist: ``uid`` of its run, ``state``, ``seeds`` and ``losses``."""

REFIT_OF = "refit_of"
"""User attribute of a study: trial number and seeds of the finalist that was registered last."""

REFIT_BEGUN = "refit_begun"
"""User attribute of a study: ``mark`` (as :data:`REFIT_OF`) and ``uid`` of the refit that was begun
last."""
