"""A look at the screens of many panes, in one tmux process."""

import secrets
from collections.abc import Collection

from gastown_mail.programs.screen import Screen
from gastown_mail.sessions import commands
from gastown_mail.sessions.tmux import NoServer, Tmux

_BATCH_SIZE = 200


def read_screens(tmux: Tmux, panes: Collection[str], *, above: int = 0) -> dict[str, Screen]:
    """Return what these panes show, and so many rows `above` it, without those that are gone.

    Raises StateUnknown or TmuxMissing.
    """
    ordered, screens = list(panes), dict[str, Screen]()
    for first in range(0, len(ordered), _BATCH_SIZE):
        # a program may print anything, but not this
        mark = f"screen-{secrets.token_hex(8)}"
        script = [
            row for pane in ordered[first : first + _BATCH_SIZE] for row in commands.look(pane, mark, above)
        ]
        try:
            output = tmux.script(script).output
        except NoServer:
            return screens
        for part in output.split(f"{mark} ")[1:]:
            head, _, body = part.partition("\n")
            number, x, y, visible, *title = head.split(" ", 4)
            rows = tuple(body.removesuffix("\n").split("\n"))
            screens[f"%{number}"] = Screen(rows, int(x), int(y), visible == "1", "".join(title))
    return screens
