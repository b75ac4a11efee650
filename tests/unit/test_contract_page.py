"""`docs/reference/contract.md` matches the code: its tables, lists and examples are compared with it."""

import inspect
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest

import gastown_mail
from gastown_mail import GastownError, State, send_lifecycle
from gastown_mail.cli import COMMANDS, cli
from gastown_mail.contracts.address import CUSTOM_ROLE, ROLES, Agent
from gastown_mail.contracts.go_formats import ZERO_TIME, format_time
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.lifecycle import DEAD_STATUSES, FINAL_STATUSES, AgentState, RequestStatus
from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.settings import load_settings
from gastown_mail.lifecycle.decision import is_authorized
from gastown_mail.lifecycle.start import session_environment
from gastown_mail.plumbing.environment import clean_environment
from gastown_mail.town.queues import ALLOWED_FUNCTIONS
from gastown_mail.town.roster import load_roster
from gastown_mail.town.town import Town
from tests.docs.contract import PAGE, example, rows, section, words
from tests.support.town import write_town
from tools.reference import PAGES

HEADINGS = [
    "Towns and addresses", "Roster", "Lifecycle request", "Statuses", "Who may ask",
    "Redis keys and queues", "Agent states", "Files", "State and Config", "Settings", "Session environment",
    "Python interface", "Command line", "Exit codes",
]  # fmt: skip
"""Other projects and comments in the code link to these."""

AGENTS = """
[agents."mayor/"]
[agents."deacon/"]
[agents."rig/witness"]
[agents."rig/refinery"]
[agents."rig/crew/max"]
[agents."rig/polecats/nux"]
[agents."other/witness"]
[agents."other/crew/ada"]
[agents."loner"]
command = "true"
"""


def test_the_anchors_of_the_page_stay() -> None:
    assert re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE) == HEADINGS


def test_every_spelling_means_the_canonical_address(tmp_path: Path) -> None:
    roster = load_roster(write_town(tmp_path, AGENTS))
    *known, other = rows("Towns and addresses")

    assert [words(role) for role, _, _ in known] == [[role] for role in ROLES]
    assert other[0] == f"`{CUSTOM_ROLE}`"
    for role, canonical, also in known:
        name = {"`crew`": "max", "`polecat`": "nux"}.get(role, "")
        first, *others = (
            word.replace("<rig>", "rig").replace("<name>", name) for word in words(canonical + also)
        )
        assert others
        assert {roster.resolve(spelling).address for spelling in (first, *others)} == {first}


def test_the_example_of_a_request_is_valid() -> None:
    _, request = decode_element(example("Lifecycle request").strip().encode())

    assert request.sender == "gastown/witness"


def test_the_statuses_are_those_of_a_request() -> None:
    groups = [set(words(cell)) for _, cell in rows("Statuses")]

    assert groups == [set(RequestStatus) - FINAL_STATUSES, FINAL_STATUSES - DEAD_STATUSES, DEAD_STATUSES]


def test_the_agent_states_are_these() -> None:
    assert [words(state) for state, _ in rows("Agent states")] == [[state] for state in AgentState]


def test_exactly_these_senders_may_ask(tmp_path: Path) -> None:
    agents = load_roster(write_town(tmp_path, AGENTS)).agents
    means: dict[str, Callable[[str, Agent], bool]] = {
        "itself": lambda asker, target: asker == target.address,
        "every agent of its rig": lambda asker, target: asker.partition("/")[0] == target.rig,
        "every agent": lambda asker, target: True,
    }

    for asker in (*agents, "operator"):
        allowed = [means[right] for left, right in rows("Who may ask") if _is_named(asker, left)]
        for target in agents.values():
            expected = any(one(asker, target) for one in allowed)
            assert is_authorized(asker, target) == expected, (asker, target.address)


def _is_named(asker: str, cell: str) -> bool:
    patterns = [word.replace("<rig>", "[a-z]+") for word in words(cell)]
    return asker != "operator" if cell == "any agent" else any(re.fullmatch(one, asker) for one in patterns)


def test_keys_queues_and_jobs_are_named_as_in_the_code() -> None:
    keys, named = Keys("town"), set(words(section("Redis keys and queues")))
    queues = Keys("<town>").lifecycle_queue("<host>"), Keys("<town>").heartbeat_queue("<host>")

    assert {*queues, keys.events, *ALLOWED_FUNCTIONS} <= named
    assert [words(key)[0] for key, _ in rows("Redis keys and queues")] == [
        keys.state, keys.agent("<address>"), keys.request("<id>"),
    ]  # fmt: skip
    assert {word for word in named if word.startswith("gastown_mail.")} == ALLOWED_FUNCTIONS
    assert keys.inbox in words(section("Lifecycle request"))


def test_the_example_of_a_state_is_written_like_this() -> None:
    text = example("State and Config")

    assert State.decode(text).encode() == text.strip()
    assert f"`{format_time(ZERO_TIME)}`" in section("State and Config")
    assert f"`{'`, `'.join(State.model_fields)}`" == rows("Redis keys and queues")[0][1]


def test_each_source_of_a_setting_overrides_the_later_ones(tmp_path: Path) -> None:
    listed = re.findall(r"^\d\. (.*)$", section("Settings"), re.MULTILINE)
    words_of = {"an argument": 4, "the environment": 3, "`town.toml`": 2, "the default": 120.0}
    values = [next(value for word, value in words_of.items() if line.startswith(word)) for line in listed]

    assert len(values) == 4
    for place, value in enumerate(values):
        given = values[place:]
        (tmp_path / "town.toml").write_text("[daemon]\nfresh_after = 2" if 2 in given else "")
        settings = load_settings(
            tmp_path,
            arguments={"fresh_after": 4} if 4 in given else {},
            environ={"GASTOWN_FRESH_AFTER": "3"} if 3 in given else {},
        )
        assert settings.daemon.fresh_after == value


def test_a_session_finds_these_variables(tmp_path: Path) -> None:
    town = Town.open(write_town(tmp_path, AGENTS), "unix:///never-connected")
    agent = town.roster().agents["rig/crew/max"]
    given = partial(session_environment, town, agent, "token", environ={"GASTOWN_MAIL": "/bin/gastown-mail"})
    named = {words(name)[0] for name, _ in rows("Session environment")}

    assert named == given(handoff=tmp_path / "handoff.md").keys() - {"PATH"}
    assert named - set(given(handoff=None)) == {"GASTOWN_HANDOFF"}


def test_a_session_inherits_only_these_variables_of_the_daemon() -> None:
    named = words(section("Session environment").partition("environment a session gets")[2])
    given = [word.replace("*", "TIME") for word in named[: named.index("env_pass")]]
    others = "HOME LOGNAME TZ SECRET GASTOWN_AGENT SSH_AUTH_SOCK PYTHONPATH TMPDIR LANG TMUX".split()

    here = {name for name in os.environ if not name.startswith("LC_")}
    kept = clean_environment(dict.fromkeys([*given, *others, *here], "C.UTF-8"))

    assert kept.keys() - {"TERM", "LC_CTYPE"} == set(given)


def test_the_public_names_are_these() -> None:
    text = section("Python interface")
    listed = words(text.partition("can be imported")[2].partition("and the")[0])[1:]
    errors = {name for name in gastown_mail.__all__ if _is_error(name)}

    assert sorted(listed) == sorted(set(gastown_mail.__all__) - errors)
    assert set(words(text.partition("raises an error")[2].partition("is safe")[0])) <= errors


def test_the_former_names_of_errors_work() -> None:
    former = words(section("Python interface").partition("`DeprecationWarning`")[2])

    assert former
    for name in former:
        with pytest.deprecated_call():
            assert issubclass(getattr(gastown_mail, name), GastownError)


def _is_error(name: str) -> bool:
    kind = getattr(gastown_mail, name)
    return isinstance(kind, type) and issubclass(kind, GastownError)


def test_send_lifecycle_takes_these_arguments() -> None:
    (call,) = re.findall(r"^send_lifecycle(\(.*\))$", example("Python interface"), re.MULTILINE)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(send_lifecycle).parameters.values()
        if parameter.name != "environ"
    ]

    assert call == str(inspect.Signature(parameters)).replace("'", '"')


def test_these_commands_take_json() -> None:
    sentence = section("Command line").partition("take `--json`")[0].rpartition("\n\n")[2]
    root = click.Context(cli)
    takers = [name for name in COMMANDS if _takes_json(cli.get_command(root, name))]

    assert sorted(words(sentence)) == sorted(takers)


def _takes_json(command: click.Command | None) -> bool:
    assert command is not None
    return any("--json" in parameter.opts for parameter in command.params)


def test_the_exit_codes_mean_what_the_detailed_page_says() -> None:
    detailed = dict(re.findall(r"^\| (\d) \| (.*) \|$", PAGES["exit-codes.md"](), re.MULTILINE))
    errors = {"1": "GastownError", "2": "SettingsError", "3": "RedisUnavailable", "5": "TmuxMissing"}

    assert [number for number, _ in rows("Exit codes")] == sorted(detailed)
    for number, meaning in rows("Exit codes"):
        assert re.findall(r"`status`: \w+|`doctor`", meaning) == re.findall(
            r"`status`: \w+|`doctor`", detailed[number]
        )
        assert errors.get(number, "") in detailed[number]
