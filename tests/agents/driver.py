"""A program in a tmux server of its own: look at its screen, type as a person would."""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_FIELDS = ("cursor_x", "cursor_y", "cursor_flag", "pane_width", "pane_height", "pane_dead", "pane_title")
_SGR = re.compile(r"\x1b\[[0-9;:]*m|\x1b\]8;[^\x1b]*\x1b\\|\x0e|\x0f")


@dataclass(frozen=True)
class Screen:
    """One look at a pane: cursor and title belong to the text, which has its colours."""

    cursor_x: int
    cursor_y: int
    cursor_visible: bool
    width: int
    height: int
    dead: bool
    title: str
    text: str

    @property
    def plain(self) -> str:
        """The text without colours."""
        return _SGR.sub("", self.text)

    def line(self, y: int) -> str:
        """Return a line without colours, counted from 0."""
        lines = self.plain.split("\n")
        return lines[y] if y < len(lines) else ""

    def record(self, program: str, version: str, state: str, note: str) -> str:
        """Return the text of a recorded screen."""
        head = {
            "program": program,
            "version": version,
            "state": state,
            "cursor": f"{self.cursor_x} {self.cursor_y}",
            "cursor_visible": int(self.cursor_visible),
            "title": self.title,
            "width": self.width,
            "height": self.height,
            "note": note,
        }
        return "".join(f"{name}: {value}\n" for name, value in head.items()) + "---\n" + self.text


class Terminal:
    """A pane with one program in a private tmux server; `close` ends both."""

    def __init__(
        self, argv: list[str], env: dict[str, str], cwd: Path, *, width: int = 200, height: int = 50
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="agents-"))
        self.socket = self._folder / "tmux"
        size = ["-x", str(width), "-y", str(height)]
        self._env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        start = ["new-session", "-d", "-s", "agent", *size, "-c", str(cwd), "env", "-i", *_pairs(env), *argv]
        self.tmux("start-server", ";", "set", "-g", "remain-on-exit", "on", ";", *start)
        self.server = int(self.tmux("display-message", "-p", "#{pid}"))

    def tmux(self, *arguments: str, given: str | None = None) -> str:
        """Run a tmux command against this server and return what it prints."""
        argv = ["tmux", "-f", "/dev/null", "-S", str(self.socket), *arguments]
        return subprocess.run(
            argv, input=given, capture_output=True, text=True, check=True, timeout=20, env=self._env
        ).stdout

    def screen(self) -> Screen:
        """Look at cursor, title and text in one tmux command."""
        form = "\t".join(f"#{{{name}}}" for name in _FIELDS)
        said = self.tmux("display-message", "-p", form, ";", "capture-pane", "-p", "-e")
        head, _, text = said.partition("\n")
        x, y, flag, width, height, dead, title = head.split("\t", len(_FIELDS) - 1)
        return Screen(int(x), int(y), flag == "1", int(width), int(height), dead == "1", title, text)

    def wait(self, wanted: str | Callable[[Screen], bool], seconds: float = 20) -> Screen:
        """Wait until the screen fulfils a condition or matches a pattern, and return it.

        Raises TimeoutError with the screen as it was at last, at once when the program has ended.
        """
        deadline = time.monotonic() + seconds
        while True:
            screen = self.screen()
            if re.search(wanted, screen.plain) if isinstance(wanted, str) else wanted(screen):
                return screen
            if time.monotonic() > deadline or screen.dead:
                raise TimeoutError(
                    f"waited up to {seconds} s for {wanted}; title {screen.title!r}\n{screen.plain}"
                )
            time.sleep(0.05)

    def settled(self, quiet: float = 0.7, seconds: float = 20) -> Screen:
        """Wait until nothing has changed for `quiet` seconds, and return the screen."""
        deadline = time.monotonic() + seconds
        screen, since = self.screen(), time.monotonic()
        while time.monotonic() - since < quiet:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the screen still changes after {seconds} s\n{screen.plain}")
            time.sleep(0.05)
            now = self.screen()
            if now != screen:
                screen, since = now, time.monotonic()
        return screen

    def type(self, text: str) -> None:
        """Type characters."""
        self.tmux("send-keys", "-l", "--", text)

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names, one after the other, as fast as a person would."""
        for name in names:
            self.tmux("send-keys", name)
            time.sleep(0.15)

    def paste(self, text: str, *, bracketed: bool = True) -> None:
        """Paste a text, in brackets if the program asked for them."""
        self.tmux("load-buffer", "-b", "paste", "-", given=text)
        self.tmux("paste-buffer", *(["-p"] if bracketed else []), "-r", "-d", "-b", "paste", "-t", "agent")

    def send(self, text: str) -> None:
        """Paste a message and press Enter half a second later."""
        self.paste(text)
        time.sleep(0.6)
        self.keys("Enter")

    def close(self) -> None:
        """End the server and with it the program."""
        subprocess.run(
            ["tmux", "-S", str(self.socket), "kill-server"], capture_output=True, timeout=20, env=self._env
        )
        self.socket.unlink(missing_ok=True)
        self._folder.rmdir()


def _pairs(env: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in env.items()]
