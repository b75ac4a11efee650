"""Files that are complete at every instant. Standard library only."""

import os
import tempfile
import time
from pathlib import Path

STALE_TEMP_SECONDS = 60.0
"""Seconds after which a temporary file is taken for what a killed writer left, and removed."""


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: a reader finds the old bytes or the new ones, also after a power cut.

    Raises OSError; then the old file stands and no temporary file is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        _write_synced(handle, data, mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    _remove_stale_temps(path, older_than=time.time() - STALE_TEMP_SECONDS)


def _write_synced(handle: int, data: bytes, mode: int) -> None:
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_stale_temps(path: Path, older_than: float) -> None:
    for entry in os.scandir(path.parent):
        if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
            _remove_if_old(Path(entry.path), older_than)


def _remove_if_old(temporary: Path, older_than: float) -> None:
    try:
        if temporary.stat().st_mtime < older_than:
            temporary.unlink()
    except (FileNotFoundError, PermissionError):
        return  # its writer has just renamed it, or it is another user's
