"""What a packed model is, in one number: whatever is changed in its folder changes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

_ADDED_ON_THE_WAY = {"registered_model_meta"}  # by MLflow, when a version is downloaded


def folder_digest(folder: Path) -> str:
    """Return a sha256 over the names and contents of all files in a model folder.

    The code inside is run when the model is loaded, and thresholds in ``MLmodel`` decide what it
    answers: the digest of the network alone would say nothing of either. Compiled code (``.pyc``)
    does not count, because Python adds it by itself: whoever loads a model deletes it first.
    """
    total = hashlib.sha256()
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        is_added = file.parent == folder and file.name in _ADDED_ON_THE_WAY
        if file.suffix == ".pyc" or is_added:
            continue
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        total.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()
