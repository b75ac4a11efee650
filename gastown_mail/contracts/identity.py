"""`daemon/private/identity.json`: which town a folder is, and which machine its agents live on."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gastown_mail.contracts import go_formats
from gastown_mail.contracts.atomic import write_atomically
from gastown_mail.contracts.errors import StateFileError
from gastown_mail.contracts.private import make_private_dir, private_file
from gastown_mail.contracts.validation import one_line_error

_Text = Annotated[str, Field(max_length=4096, description="a text")]


class Identity(BaseModel):
    """The identity of a town's folder. The default is that of a folder in which no daemon ever ran.

    `town` (as soon as Redis has agreed to it) and `machine` are random, `name` is the town's name when it
    was last started. They hold for the folder `root` (`folder`: its device and inode) on the
    machine that `bound_to` is a digest of, so that a copy is noticed. `tmux_socket` is the absolute path of
    the socket in use. `moved_to`: the folder that has taken over; nothing runs here any more.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    town: _Text = ""
    name: _Text = ""
    machine: _Text = ""
    tmux_socket: _Text = ""
    root: _Text = ""
    folder: _Text = ""
    bound_to: _Text = ""
    moved_to: _Text = ""


def identity_file(daemon_dir: Path) -> Path:
    """The path of the identity."""
    return private_file(daemon_dir, "identity.json")


def load_identity(daemon_dir: Path) -> Identity:
    """Read the identity; the default one if there is no file. Raises StateFileError, which names the file."""
    path = identity_file(daemon_dir)
    try:
        values: dict[str, Any] = go_formats.load_object(path.read_bytes().decode())
        return Identity.model_validate(values)
    except FileNotFoundError:
        return Identity()
    except ValidationError as error:
        why = one_line_error(error, Identity)
    except PermissionError:
        raise StateFileError(
            f"{path} is not readable for this user: run this as the owner of {daemon_dir}"
        ) from None
    except (OSError, ValueError) as error:
        why = str(error)
    raise StateFileError(
        f"{path}: {why}; restore it from a backup, or move it away if no agent of this town runs"
    )


def save_identity(daemon_dir: Path, identity: Identity) -> None:
    """Write the identity, readable by this user only. Raises StateFileError."""
    path = identity_file(daemon_dir)
    try:
        daemon_dir.mkdir(mode=0o755, exist_ok=True)
        if path.parent != daemon_dir:
            make_private_dir(path.parent)
        write_atomically(path, (go_formats.dump_indented(identity.model_dump()) + "\n").encode(), 0o600)
    except OSError as error:
        raise StateFileError(f"{path} cannot be written: {error}; give this user write access") from error
