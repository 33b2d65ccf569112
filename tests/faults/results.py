"""What a harness found, in a file that several write to at the same time."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any


def add_result(file: Path, name: str, found: dict[str, Any]) -> None:
    """Add one result, under its name, to those of other lanes; it takes the place of an older one.

    Args:
        file: JSON, an object of objects; made where it is not there.
        name: Of the result.
        found: The figures.
    """
    with file.open("a+") as shared:
        fcntl.flock(shared, fcntl.LOCK_EX)
        shared.seek(0)
        results = json.loads(shared.read() or "{}")
        results[name] = found
        shared.truncate(0)
        shared.write(json.dumps(results, indent=1) + "\n")
