"""Commands, JSON documents and settings, as literals (see `test_pinned_words.py`)."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel

from gastown_mail.cli import cli
from gastown_mail.contracts.settings import Settings, load_settings
from gastown_mail.status.model import Explanation, Report
from gastown_mail.town.roster import load_roster

COMMANDS = """
gastown-mail --version --town=DIR
gastown-mail init [DIRECTORY] --gas-town --new-identity
gastown-mail import [DIRECTORY] --town=DIR --socket=S --adopt
gastown-mail up --town=DIR -q/--quiet
gastown-mail start --town=DIR
gastown-mail stop --town=DIR
gastown-mail restart --town=DIR
gastown-mail status --town=DIR --json -w/--watch --interval=SECONDS:1.0
gastown-mail agents --town=DIR --json --agent=A
    --status=alive|ended|none|foreign|elsewhere|unknown|ready|busy|asks|limited|starting|draft
gastown-mail explain --town=DIR --json AGENT
gastown-mail requests --town=DIR --json --agent=A
    --status=received|carrying|done|superseded|refused|expired|failed --since=WHEN -n=INT:50 [ID...]
gastown-mail inbox --town=DIR --json --agent=A --since=WHEN -n=INT:50
gastown-mail dead --town=DIR --json --agent=A --status=expired|failed|refused --since=WHEN -n=INT:50
gastown-mail dead drop --town=DIR --json ID...
gastown-mail dead revive --town=DIR --json ID...
gastown-mail events --town=DIR -f/--follow -n=INT --agent=A --event=E --since=WHEN --json
gastown-mail logs --town=DIR -n=INT:50 -f/--follow --json
gastown-mail send ACTION --town=DIR --agent=A --to=A --reason=T --id=ID --handoff=T --wait=SECONDS
gastown-mail poke --town=DIR AGENT [TEXT]
gastown-mail run --town=DIR AGENT
gastown-mail attach --town=DIR AGENT
gastown-mail pause --town=DIR [AGENT] --all
gastown-mail resume --town=DIR [AGENT] --all
gastown-mail clear --town=DIR AGENT
gastown-mail adopt --town=DIR AGENT
gastown-mail move --town=DIR AGENT HOST --from-dead
gastown-mail move-town --town=DIR
gastown-mail programs --town=DIR --json --agent=A --save=PATH [NAME] [FILE]
gastown-mail hooks
gastown-mail hooks ask PROGRAM
gastown-mail hooks install PROGRAM --dir=DIR --yes/-y
gastown-mail hooks show --dir=DIR
gastown-mail hooks uninstall PROGRAM --dir=DIR --yes/-y
gastown-mail doctor --town=DIR --json
gastown-mail demo --deadline=SECONDS:25.0
"""

PARTS = "settings|state|redis|tmux|roster|records|schedule|workers|mail"
ROW = """
    agent text, host text, session text, desired running|stopped|paused|unknown?, must_run boolean?,
    observed alive|ended|none|foreign|elsewhere|unknown,
    state ready|busy|asks|limited|starting|draft|ended|none|elsewhere|unknown, state_since time?,
    state_age number?, state_line text?, limited_until time?, context integer?, program text,
    has_poke boolean, exit_status integer?, since time?, age number?, active time?, idle number?,
    attached integer?, waits back-off|quarantine?, waits_until time?, last_poke time?, since_poke number?,
    restarts integer?, start_fault text?, work_dir text, damage text?, decision text?
"""
REPORT = f"""
    version 1, town text?, root text, asked time, verdict running|degraded|stopped,
    troubles[].reason text, troubles[].remedy text, unknown.{PARTS} text, paused boolean?,
    suspended boolean?, rewound time?, replicas_missing integer, asks_after number?,
    daemon.held boolean, daemon.pid integer?, daemon.frozen boolean, daemon.running boolean?,
    daemon.since time?, daemon.state_from redis|state.json?, daemon.state_age number?,
    heartbeat.count integer, heartbeat.last time?, heartbeat.age number?, heartbeat.next time?,
    heartbeat.due_in number?, heartbeat.interval number?,
    hosts[].host text, hosts[].here boolean, hosts[].lifecycle integer, hosts[].expected integer?,
    hosts[].heartbeat integer, hosts[].seen time?, hosts[].agents[] text,
    mail.clerk boolean, mail.inbox integer, mail.inbox_oldest number?, mail.taken integer,
    mail.taken_oldest number?, mail.open integer, mail.open_oldest number?, mail.dead integer,
    mail.stalled number?,
    agents[].ROW
"""
EXPLANATION = f"""
    version 1, asked time, decision text?, decided time?, decided_ago number?, now.ROW,
    wish.desired running|stopped|paused|unknown?, wish.by text, wish.since time?, town_paused boolean?,
    daemon_runs boolean?, last_request.id text, last_request.action text, last_request.asked_by text,
    last_request.status text, last_request.received time?, last_request.finished time?,
    last_request.detail text,
    next_steps[] text, unknown.{PARTS} text
"""

DAEMON: dict[str, tuple[object, str, object]] = {
    "heartbeat_interval": (300.0, "7s", 7.0),
    "log_file": (None, "/log", Path("/log")),
    "pid_file": (None, "/pid", Path("/pid")),
    "redis_url": (None, "redis://h/1", "redis://h/1"),
    "agent_redis_url": (None, "redis://a/1", "redis://a/1"),
    "min_replicas": (0, "1", 1),
    "tmux_socket": (None, "sock", "sock"),
    "host": (None, "h2", "h2"),
    "workers": (2, "3", 3),
    "sweep_interval": (30.0, "9", 9.0),
    "asks_after": (600.0, "20m", 1200.0),
    "max_request_age": (3600.0, "2h", 7200.0),
    "fresh_after": (120.0, "1m30s", 90.0),
    "poke_backoff_factor": (1.5, "2", 2.0),
    "poke_backoff_max": (1800.0, "5", 5.0),
    "restart_backoff": (30.0, "5", 5.0),
    "restart_backoff_max": (600.0, "5", 5.0),
    "crash_loop_count": (5, "6", 6),
    "crash_loop_window": (900.0, "5", 5.0),
    "quarantine": (1800.0, "5", 5.0),
    "require_incarnation": (False, "true", True),
    "log_size": (10_000_000, "1MB", 1_000_000),
    "events_kept": (10_000, "5", 5),
    "requests_kept": (604_800.0, "5", 5.0),
    "spare": ((), "mydaemon, mytool serve,!tmux", ("mydaemon", "mytool serve", "!tmux")),
}
"""Each key of `[daemon]`: its default, a text for its variable, and what that text means."""

OF_AGENTS = {
    "command": "run {town} {rig} {name} {role} {prompt}", "work_dir": "w/{name}", "session": "s-{name}",
    "poke": "hello {name}", "keep_running": True, "stop_grace": 3.0, "env": {"RIG": "{rig}"}, "host": "h2",
    "program": "aider", "env_pass": ("KEY", "LC_*"), "cycle_at": 80,
}  # fmt: skip

ROLES = """
mayor/              | mayor               | gt-mayor            | .                    | 0 | HEARTBEAT: check your rigs
deacon/             | deacon              | gt-deacon           | .                    | 1 | HEARTBEAT: run your rounds
rig/witness         | rig-witness         | gt-rig-witness      | rig                  | 0 | HEARTBEAT: check your workers
rig/refinery        | rig-refinery        | gt-rig-refinery     | rig/refinery/rig     | 0 |
rig/crew/max        | rig-crew-max        | gt-rig-crew-max     | rig/crew/max         | 0 |
rig/polecats/toast  | rig-polecat-toast   | gt-rig-toast        | rig/polecats/toast   | 0 |
docs/writer         | docs/writer         | gt-docs-writer      | .                    | 0 |
"""  # noqa: E501
"""What an agent has by its role alone: address, other spelling, session, work dir, keep_running, poke."""


def commands(command: click.Command, path: str) -> Iterator[str]:
    """Yield one line for each command: its name, its options and arguments in their order."""
    yield " ".join([path, *map(spelled, command.params)])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")


def spelled(parameter: click.Parameter) -> str:
    """Return an option or an argument in the form of `COMMANDS`."""
    if not isinstance(parameter, click.Option):
        name = parameter.human_readable_name.strip("[].") + "..." * (parameter.nargs < 0)
        return name if parameter.required else f"[{name}]"
    names = "/".join(parameter.opts)
    if parameter.is_flag:
        return names
    choices = "|".join(parameter.type.choices) if isinstance(parameter.type, click.Choice) else ""
    kind = "INT" if parameter.type.name.startswith("integer") else ""
    default = f":{parameter.default}" if isinstance(parameter.default, int | float) else ""
    return f"{names}={choices or parameter.metavar or kind}{default}"


def test_every_command_with_its_options_and_arguments() -> None:
    assert list(commands(cli, "gastown-mail")) == COMMANDS.replace("\n    ", " ").strip().split("\n")


Schema = Mapping[str, Any]


def shape(schema: Schema, node: Schema, path: str = "") -> Iterator[str]:
    """Yield each key of a document with what it holds; `?` where that may be null."""
    filled = next((one for one in node.get("anyOf", ()) if one.get("type") != "null"), node)
    part = schema["$defs"][filled["$ref"].rpartition("/")[2]] if "$ref" in filled else filled
    if "properties" in part:
        for key, value in part["properties"].items():
            yield from shape(schema, value, f"{path}.{key}".lstrip("."))
    elif part.get("type") == "object":
        yield from shape(schema, part["additionalProperties"], f"{path}.{words(part['propertyNames'])}")
    elif part.get("type") == "array":
        yield from shape(schema, part["items"], f"{path}[]")
    else:
        yield f"{path} {words(part) or kind(part)}" + "?" * ("anyOf" in node)


def words(part: Schema) -> str:
    """Return the words allowed there, "" when any word is."""
    return "|".join(map(str, part.get("enum", [part["const"]] if "const" in part else [])))


def kind(part: Schema) -> str:
    return "time" if part.get("format") == "date-time" else part["type"].replace("string", "text")


def listed(text: str) -> list[str]:
    """Return the lines of a shape above, with those of a row in their place."""
    lines = [" ".join(line.split()) for line in text.split(",")]
    return [whole for line in lines for whole in (rows(line) if line.endswith(".ROW") else [line])]


def rows(line: str) -> list[str]:
    """Return the lines of a row at the place that this line names."""
    return [line.replace("ROW", each) for each in listed(ROW)]


@pytest.mark.parametrize(("model", "pinned"), [(Report, REPORT), (Explanation, EXPLANATION)])
def test_the_documents_of_status_agents_and_explain(model: type[BaseModel], pinned: str) -> None:
    schema = model.model_json_schema(mode="serialization")

    assert list(shape(schema, schema)) == listed(pinned)


def settings(root: Path, toml: str = "", **environ: str) -> Settings:
    root.mkdir(exist_ok=True)
    (root / "town.toml").write_text(toml)
    return load_settings(root, environ=environ)


def test_the_settings_of_the_daemon_and_their_defaults(tmp_path: Path) -> None:
    found = settings(tmp_path).daemon.model_dump()

    assert found == {key: default for key, (default, _, _) in DAEMON.items()}


@pytest.mark.parametrize("key", DAEMON)
def test_each_setting_of_the_daemon_has_its_variable(tmp_path: Path, key: str) -> None:
    _, text, meaning = DAEMON[key]

    found = settings(tmp_path, **{f"GASTOWN_{key.upper()}": text}).daemon.model_dump()

    assert found[key] == meaning


def test_the_settings_of_roles_and_agents(tmp_path: Path) -> None:
    table = "".join(f"{key} = {toml(value)}\n" for key, value in OF_AGENTS.items())
    found = settings(tmp_path, f'[roles.crew]\n{table}[agents."rig/crew/max"]\n{table}')

    assert found.roles["crew"].model_dump() == found.agents["rig/crew/max"].model_dump() == OF_AGENTS
    agent = load_roster(found).agents["rig/crew/max"]
    assert (agent.session, agent.poke, agent.env, agent.host) == ("s-max", "hello max", {"RIG": "rig"}, "h2")
    assert (agent.program, agent.env_pass, agent.cycle_at) == ("aider", ("KEY", "LC_*"), 80)
    assert agent.command_line("it's you", "/t") == """run /t rig max crew 'it'"'"'s you'"""


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'{key} = "{text}"' for key, text in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{text}"' for text in value) + "]"
    return str(value).lower() if isinstance(value, bool | float) else f'"{value}"'


def test_what_an_agent_has_by_its_role(tmp_path: Path) -> None:
    rows = [[cell.strip() for cell in line.split("|")] for line in ROLES.strip().split("\n")]
    declared = "".join(f'[agents."{row[0]}"]\n' for row in rows)
    roster = load_roster(settings(tmp_path, declared + 'command = "claude"\n'))

    assert list(roster.agents) == [row[0] for row in rows]
    for address, also, session, work_dir, keep_running, poke in rows:
        agent = roster.resolve(also)
        assert (agent.address, agent.session, agent.poke or "") == (address, session, poke)
        assert agent.work_dir == tmp_path / work_dir
        assert (agent.keep_running, agent.stop_grace) == (keep_running == "1", 5.0)
    assert roster.agents["mayor/"].command == "claude --dangerously-skip-permissions {prompt}"
    assert roster.agents["docs/writer"].role == "agent"


def test_where_a_town_has_its_files_and_its_tmux_server(tmp_path: Path) -> None:
    root = tmp_path / "My Town"
    found = settings(root)

    digest = hashlib.sha256(str(root).encode()).hexdigest()[:6]
    assert (found.town_name, found.tmux_socket) == ("my-town", f"gastown-my-town-{digest}")
    assert settings(root, 'town_name = "Other"').town_name == "other"
    assert {found.log_file, found.pid_file} == {
        root / "daemon" / "private" / "daemon.log",
        root / "daemon" / "daemon.pid",
    }
