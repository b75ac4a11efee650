"""`daemon/private/`: the files that only the town's owner may read or lock."""

import errno
import os
from pathlib import Path

PRIVATE_FILES = (
    "daemon.lock", "daemon.log", "state.lock", "desired.lock", "identity.lock",
    "desired.json", "identity.json", "revision.json",
)  # fmt: skip


def private_dir(daemon_dir: Path) -> Path:
    """The folder, of mode 0700."""
    return daemon_dir / "private"


def private_file(daemon_dir: Path, name: str) -> Path:
    """The path of a private file: in `daemon/` until the first start of a version that has `private/`."""
    new, old = private_dir(daemon_dir) / name, daemon_dir / name
    # False, not an error, for what this user may not look at
    is_old = os.path.exists(old) and not old.is_symlink() and not os.path.exists(new)  # noqa: PTH110
    return old if is_old else new


def make_private_dir(folder: Path) -> None:
    """Make the folder, or take the group's and others' rights to it away.

    Raises OSError, also if it is a link: it could lead to another's folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink():
        raise OSError(errno.ENOTDIR, "it is a symbolic link; put a folder in its place", str(folder))
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
