"""The error family: the class says what the caller does, the text says what happened and what to do next.

`exit_code` is the exit code of `gastown-mail`: docs/reference/contract.md#exit-codes.
"""

from typing import ClassVar


class GastownError(Exception):
    """Something went wrong; the text says what happened and what to do next."""

    exit_code: ClassVar[int] = 1


class SettingsError(GastownError):
    """A setting or an argument is bad: tell the user, change nothing."""

    exit_code = 2


class AddressError(GastownError):
    """A spelling does not name an agent of this town: refuse, with the reason."""


class InvalidRequest(GastownError):
    """An inbox element is not a request: keep its bytes as a dead letter and continue."""

    def __init__(self, reason: str, raw: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.raw = raw


class StateFileError(GastownError):
    """`state.json` cannot be read as a state: tell the user which file and why."""


class RedisUnavailable(GastownError):
    """Redis did not answer or refused: do nothing; try again later."""

    exit_code = 3


class RequestNotAccepted(RedisUnavailable):
    """The request was not accepted: the sender may send it again."""


class TownLocked(GastownError):
    """Another daemon holds the town: leave it alone."""

    exit_code = 4

    def __init__(self, text: str, pid: int | None = None) -> None:
        super().__init__(text)
        self.pid = pid


class StateUnknown(GastownError):
    """tmux, Redis or the disk gave no usable answer: do not start or end anything."""


class Postponed(GastownError):
    """This cannot be done now: lease lost, town paused, daemon stopping, or request already settled.

    Nothing is wrong and nothing was touched; unfinished work is resumed later.
    """


class TmuxMissing(StateUnknown):
    """tmux is not installed: nothing can be seen, started or ended until it is."""

    exit_code = 5


class SessionNotManaged(GastownError):
    """The session has no token: do not end it or type into it; `adopt` gives it one."""


class StartFailed(GastownError):
    """A session could not be started: try again, or settle the request as failed with this text."""


class ProcessesSurvived(GastownError):
    """Processes of a session survived SIGKILL: start no successor, settle as failed with this text."""
