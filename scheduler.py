"""Enqueues heartbeats and sweeps until SIGTERM. Settings: the environment and town.toml."""

import os
import signal
import sys
import threading
from pathlib import Path

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.settings import find_town, load_settings
from gastown_mail.daemon import service
from gastown_mail.plumbing import log


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.configure(log_file=None, stream=True)
    try:
        settings = load_settings(find_town(Path.cwd(), os.environ), environ=os.environ)
        service.run_scheduler(settings, service.open_redis(settings), stop)
    except GastownError as error:
        print(f"scheduler: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
