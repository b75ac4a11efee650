"""Files that are complete at every instant. Standard library only."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_STALE_TEMP_SECONDS = 60.0
"""Seconds after which a temporary file counts as left by a killed writer, and is removed."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the content of `path`: a reader gets the old bytes or the new ones, even after a power cut.

    Raises OSError; the old file then stays, and no temporary file is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    _remove_stale_temps(path)


def _remove_stale_temps(path: Path) -> None:
    oldest = time.time() - _STALE_TEMP_SECONDS
    for entry in os.scandir(path.parent):
        if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
            # its writer has just renamed it, or it is another user's
            with suppress(FileNotFoundError, PermissionError):
                if entry.stat().st_mtime < oldest:
                    Path(entry.path).unlink()
