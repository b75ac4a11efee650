#!/opt/venv/bin/python
"""Starts the program that it is called as, with the Redis URLs that its container may know.

A container that may know the daemon's URL starts as root, because only root can read the password. Root is
given up without an exec: what the process has read is then hidden from other processes of the same user
(Linux calls it "not dumpable"), such as the agents, which share the workers' user and process namespace.
"""

import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

HERE = Path(__file__).resolve().parent
SECRETS = Path("/run/gastown")
ADDRESS = "redis:6379"


def main() -> None:
    """Run the program that this file was called as."""
    name = Path(sys.argv[0]).name
    os.environ.update(urls(os.environ, SECRETS))
    give_up_root(int(os.environ.get("GASTOWN_UID") or 1000), int(os.environ.get("GASTOWN_GID") or 1000))
    if name in ("worker", "scheduler"):
        runpy.run_path(str(HERE / f"{name}.py"), run_name="__main__")
    elif name == "gastown-mail":
        runpy.run_module("gastown_mail", run_name="__main__", alter_sys=True)
    elif name == "rq":
        runpy.run_module("rq.cli", run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"start.py: called as {name!r}; expected one of the names in {HERE / 'bin'}")


def urls(environ: Mapping[str, str], secrets: Path) -> dict[str, str]:
    """The variables with the URLs that this container may know; variables already set take precedence."""
    agent = environ.get("GASTOWN_AGENT_REDIS_URL") or _url(
        "agent", environ.get("GASTOWN_AGENT_REDIS_ADDRESS"), secrets
    )
    own = environ.get("GASTOWN_REDIS_URL") or _url("daemon", environ.get("GASTOWN_REDIS_ADDRESS"), secrets)
    said = {"GASTOWN_AGENT_REDIS_URL": agent, "GASTOWN_REDIS_URL": own or agent, "RQ_REDIS_URL": own}
    return {name: url for name, url in said.items() if url}


def _url(user: str, address: str | None, secrets: Path) -> str:
    file = secrets / user / "password"
    if not file.is_file():
        return ""
    password = quote(file.read_text().strip(), safe="")
    return f"redis://{user}:{password}@{address or ADDRESS}/0"


def give_up_root(uid: int, gid: int) -> None:
    """Become the town's user for good; a process that is not root stays as it is."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


if __name__ == "__main__":
    main()
