#!/opt/venv/bin/python
"""Prepares what the other containers need, before each `up`: passwords, Redis users, folders, a first town.

It runs as root and ends. A second run changes nothing, unless the town's name or a password in the
environment has changed.
"""

import hashlib
import os
import secrets
import shutil
import sys
from pathlib import Path

from gastown_mail.contracts.errors import GastownError
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.settings import load_settings

SAMPLE = Path(__file__).resolve().parent / "sample"
SECRETS, HOME, SOCKETS = Path("/run/gastown"), Path("/home/gastown"), Path("/run/tmux")
READABLE, ROOT_ONLY = 0o444, 0o400


def main() -> None:
    """Prepare everything, or end with a sentence on stderr."""
    town, owner = Path(os.environ["GASTOWN_TOWN"]), (_number("GASTOWN_UID"), _number("GASTOWN_GID"))
    try:
        make_town(town, owner)
        keys = Keys(load_settings(town, environ={}).town_name)
    except GastownError as error:
        sys.exit(f"setup: {error}")
    daemon = password(SECRETS / "daemon", "GASTOWN_DAEMON_PASSWORD", ROOT_ONLY)
    agent = password(SECRETS / "agent", "GASTOWN_AGENT_PASSWORD", READABLE)
    dashboard = password(SECRETS / "dashboard", "GASTOWN_DASHBOARD_PASSWORD", READABLE)
    # It holds only hashes, and redis-server gives up root before it reads it.
    write(SECRETS / "redis" / "users.acl", users(keys, daemon, agent, dashboard), READABLE)
    for folder, mode in ((HOME, 0o755), (SOCKETS, 0o700)):
        os.chown(folder, *owner)
        folder.chmod(mode)
    print(f"setup: town {keys.town} is ready")  # noqa: T201


def _number(variable: str) -> int:
    return int(os.environ.get(variable) or 1000)


def make_town(town: Path, owner: tuple[int, int]) -> None:
    """Give the town's folder to its user if root owns it; put the sample into it if it is empty."""
    if town.stat().st_uid == 0:
        os.chown(town, *owner)
    found = town.stat()
    if found.st_uid != owner[0]:
        sys.exit(
            f"setup: the town's folder belongs to user {found.st_uid}, but the containers run as {owner[0]}: "
            f"write GASTOWN_UID={found.st_uid} and GASTOWN_GID={found.st_gid} into the file .env"
        )
    if not any(town.iterdir()):
        shutil.copytree(SAMPLE, town, dirs_exist_ok=True)
        for path in town.rglob("*"):
            os.chown(path, *owner)


def password(folder: Path, variable: str, mode: int) -> str:
    """The password from the environment, else the one made before, else a new one."""
    file = folder / "password"
    said = os.environ.get(variable) or (file.read_text().strip() if file.exists() else "")
    chosen = said or secrets.token_urlsafe(32)
    write(file, chosen + "\n", mode)
    return chosen


def users(keys: Keys, daemon: str, agent: str, dashboard: str) -> str:
    """The Redis users: the daemon has the town's keys and rq's; an agent may send and read requests.

    No client can log in as `default`, but it keeps its rights: Redis 8.0 loads its append-only file as that
    user, and without them it drops every transaction in the file (redis issue 14541, valkey issue 3983).
    """
    town, request = keys.inbox.removesuffix("inbox"), keys.request("*")
    # The dashboard may read all of rq, and remove stale ids from rq's lists, which reading them does.
    look = "-@all +@read +@transaction +srem +lrem -@dangerous +ping +info"
    return (
        "user default off resetpass ~* &* +@all\n"
        "user health on nopass resetkeys resetchannels -@all +ping\n"
        f"user daemon on {digest(daemon)} ~{town}* ~rq:* &rq:* +@all -@admin -@dangerous +info\n"
        f"user agent on {digest(agent)} resetkeys resetchannels -@all"
        f" (%W~{keys.inbox} +rpush) (%R~{request} %R~{keys.epoch} +hgetall)\n"
        f"user dashboard on {digest(dashboard)} ~rq:* {look}\n"
    )


def digest(word: str) -> str:
    """A password in the form of an ACL file."""
    return "#" + hashlib.sha256(word.encode()).hexdigest()


def write(file: Path, text: str, mode: int) -> None:
    """Write a file as a whole or not at all."""
    draft = file.with_name(f".{file.name}")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.chmod(mode)
    draft.replace(file)


if __name__ == "__main__":
    main()
