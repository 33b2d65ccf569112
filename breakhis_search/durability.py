"""Files that are to survive a power cut before anything says that they are there."""

from __future__ import annotations

import os
from pathlib import Path


def sync_tree(folder: Path) -> None:
    """Have the disk keep every file below a folder, and the folders that name them.

    Raises:
        OSError: The disk refuses.
    """
    if not folder.is_dir():
        return
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place) / name)
        sync(Path(place))


def replace_file(file: Path, text: str) -> None:
    """Give a file another content; a power cut leaves the old or the new one, and never half of it.

    Raises:
        OSError: The disk refuses.
    """
    part = file.with_name(f"{file.name}.part")
    with part.open("w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    part.replace(file)


def sync(path: Path) -> None:
    """Have the disk keep what is in a file, or which names are in a folder.

    Raises:
        OSError: The disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
