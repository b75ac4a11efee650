"""The environment from which the daemon starts sessions, as far as it can be seen from here."""

import os
from collections.abc import Mapping

from gastown_mail.plumbing.environment import without_session
from gastown_mail.sessions import process_table
from gastown_mail.status.collect import StatusCollector


def daemon_environment(collector: StatusCollector) -> Mapping[str, str]:
    """The environment of the daemon that runs here; else the one that a start from here would give."""
    holder = collector.holder
    raw = process_table.environment(holder.pid) if holder and holder.pid else b""
    entries = (os.fsdecode(entry).partition("=") for entry in raw.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in entries} or without_session(os.environ)
