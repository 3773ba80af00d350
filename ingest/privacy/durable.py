"""What a power loss must not take: a key is as lasting as what is sealed under it."""

import os


def sync(path: str | os.PathLike[str]) -> None:
    """Make a local file's content, or a folder's entries, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
