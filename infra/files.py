"""Files that a kill or a power loss leaves whole or absent."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's content, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_text(path: Path, text: str) -> None:
    """Give `path` new content: a reader sees the old or the new, never a part."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    sync(part)
    part.replace(path)
    sync(path.parent)


def write_private(path: Path, text: str) -> None:
    """Give `path` new content that only this user may read, from its first byte on."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
