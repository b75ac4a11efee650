"""Runs the clerk and the rq workers of this host until SIGTERM. Settings: the environment and town.toml."""

import os
import sys
from pathlib import Path

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.settings import find_town, load_settings
from gastown_mail.daemon import service
from gastown_mail.plumbing import log


def main() -> int:
    """Run until SIGTERM; return the exit code."""
    log.configure(log_file=None, stream=True)
    try:
        settings = load_settings(find_town(Path.cwd(), os.environ), environ=os.environ)
        service.require_tmux()
        lock, url = service.try_lock_town(settings), service.open_redis(settings)
        service.serve(settings, url, service.worker_processes(settings, url), lock)
    except GastownError as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
