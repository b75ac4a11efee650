"""`status`: the town at a glance."""

import json
from datetime import UTC, datetime
from typing import Any

import click
from rq.worker_registration import get_keys

from gastown_mail.cli.agents import agent_rows, agents_table
from gastown_mail.cli.here import json_option, open_town, settings_of, show, town_option
from gastown_mail.contracts.errors import RedisUnavailable, Unknown
from gastown_mail.contracts.settings import Settings
from gastown_mail.contracts.state import State, load_state
from gastown_mail.contracts.times import ZERO_TIME, format_duration
from gastown_mail.daemon.queues import queue
from gastown_mail.daemon.town import Town
from gastown_mail.mail.inbox import Inbox
from gastown_mail.plumbing.files import TownLock

STOPPED, DEGRADED = 3, 4
LATE_AFTER = 2.0
"""A heartbeat that is later than this many intervals degrades the town."""


@click.command()
@town_option
@json_option
def status(town: str | None, as_json: bool) -> int:
    """Say whether the daemon serves: exit 0 healthy, 3 stopped, 4 degraded."""
    report = examine(settings_of(town), town)
    if as_json:
        show(report)
    else:
        click.echo(_readable(report))
    return {"running": 0, "stopped": STOPPED}.get(report["verdict"], DEGRADED)


def examine(settings: Settings, town: str | None) -> dict[str, Any]:
    """What `status` says, as plain data; a part that does not answer is named in `troubles`."""
    state, holder = load_state(settings.town_root), TownLock.holder(settings.lock_file)
    report: dict[str, Any] = {"town": settings.town_name, "troubles": [], "state": json.loads(state.encode())}
    beaten = state.last_heartbeat != ZERO_TIME
    report["heartbeat_age"] = round(_age(state.last_heartbeat), 1) if beaten else None
    if holder is None and not state.running:
        return report | {"verdict": "stopped"}
    if holder is None:
        report["troubles"].append(
            "no process holds the town's lock: the daemon was killed, or runs elsewhere"
        )
    report["troubles"] += _late(state, settings)
    try:
        with open_town(town) as opened:
            report |= _of_redis(opened)
            report["agents"] = agent_rows(opened)
    except (RedisUnavailable, Unknown) as error:
        report["troubles"].append(str(error))
    report["troubles"] += [
        f"no worker listens on {name}" for name, n in report.get("workers", {}).items() if not n
    ]
    return report | {"verdict": "degraded" if report["troubles"] else "running"}


def _late(state: State, settings: Settings) -> list[str]:
    age = _age(max(state.last_heartbeat, state.started_at))
    if age < LATE_AFTER * settings.daemon.heartbeat_interval:
        return []
    return [f"the last heartbeat was {format_duration(round(age))} ago"]


def _age(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()


def _of_redis(town: Town) -> dict[str, Any]:
    names = (town.keys.lifecycle_queue(town.host), town.keys.heartbeat_queue(town.host))
    return {
        "workers": {name: len(get_keys(queue=queue(name, town.redis))) for name in names},
        "inbox": Inbox(town.redis, town.keys).waiting(),
        "taken": town.redis.llen(town.keys.taken),
        "open": town.redis.zcard(town.keys.open),
        "dead": town.redis.zcard(town.keys.dead),
    }


def _readable(report: dict[str, Any]) -> str:
    state = report["state"]
    lines = [f"{report['town']}: {report['verdict']}", *(f"  ! {trouble}" for trouble in report["troubles"])]
    if state["pid"]:
        lines.append(f"  pid {state['pid']}, since {state['started_at']}")
    age = report["heartbeat_age"]
    ago = "none yet" if age is None else f"the last {format_duration(max(0, round(age)))} ago"
    lines.append(f"  heartbeats: {state['heartbeat_count']}, {ago}")
    if "inbox" in report:
        lines.append("  inbox {inbox}, taken {taken}, open {open}, dead letters {dead}".format(**report))
        lines += [f"  workers on {name}: {count}" for name, count in report["workers"].items()]
    if "agents" in report:
        lines += ["", agents_table(report["agents"])]
    return "\n".join(lines)
