"""Moving a town's private files from `daemon/` into `daemon/private/`."""

from contextlib import suppress
from pathlib import Path

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.contracts.private import PRIVATE_FILES, make_private_dir, private_dir
from gastown_mail.plumbing.locks import TownLock

_LINKS = ("daemon.lock", "daemon.log")
"""Names that other programs know: links to the files stay where they were."""


def prepare_private_files(daemon_dir: Path) -> None:
    """Make `daemon/private/` and move there what an earlier version left in `daemon/`.

    While a daemon of an earlier version runs, its files stay. Raises SettingsError.
    """
    if not (daemon_dir / "daemon.lock").is_symlink() and TownLock.holder(daemon_dir / "daemon.lock"):
        return
    folder = private_dir(daemon_dir)
    try:
        daemon_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        make_private_dir(folder)
        for old in [*(daemon_dir / name for name in PRIVATE_FILES), *daemon_dir.glob("daemon.log.*")]:
            new = folder / old.name
            if not old.is_symlink() and not new.exists():
                with suppress(FileNotFoundError):
                    old.replace(new)
        for name in _LINKS:
            with suppress(FileExistsError):
                (daemon_dir / name).symlink_to(Path(folder.name) / name)
    except OSError as error:
        raise SettingsError(
            f"{error.filename or folder} cannot be used ({error.strerror}): {daemon_dir} must be a folder of "
            "this user"
        ) from error
