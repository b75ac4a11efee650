import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.contracts.settings import DaemonSettings, Settings, find_town, load_settings, town_name

NOTHING: Mapping[str, object] = {}


def load(root: Path, toml: str = "", arguments: Mapping[str, object] = NOTHING, **environ: str) -> Settings:
    (root / "town.toml").write_text(toml)
    return load_settings(root, arguments=arguments, environ=environ)


def error_of(root: Path, toml: str = "", arguments: Mapping[str, object] = NOTHING, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(root, toml, arguments, **environ)
    assert caught.value.exit_code == 2
    assert "pydantic" not in str(caught.value)
    return str(caught.value)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert DaemonSettings().model_dump() == {
        "heartbeat_interval": 300,
        "log_file": None,
        "pid_file": None,
        "redis_url": None,
        "agent_redis_url": None,
        "min_replicas": 0,
        "tmux_socket": None,
        "host": None,
        "workers": 2,
        "sweep_interval": 30,
        "asks_after": 600,
        "max_request_age": 3600,
        "fresh_after": 120,
        "poke_backoff_factor": 1.5,
        "poke_backoff_max": 1800,
        "restart_backoff": 30,
        "restart_backoff_max": 600,
        "crash_loop_count": 5,
        "crash_loop_window": 900,
        "quarantine": 1800,
        "require_incarnation": False,
        "log_size": 10_000_000,
        "events_kept": 10_000,
        "requests_kept": 7 * 24 * 3600,
        "spare": (),
    }


def test_a_missing_file_means_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, environ={})
    assert settings.daemon == DaemonSettings()
    assert (settings.roles, settings.agents) == ({}, {})


def test_the_paths_of_a_town(tmp_path: Path) -> None:
    settings = load(tmp_path)
    daemon = tmp_path / "daemon"
    assert settings.town_root == tmp_path
    assert settings.log_file == daemon / "private" / "daemon.log"
    assert settings.pid_file == daemon / "daemon.pid"
    assert settings.lock_file == daemon / "private" / "daemon.lock"
    assert settings.redis_dir == daemon / "redis"
    assert settings.handoff_dir == daemon / "handoff"
    digest = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:6]
    assert settings.tmux_socket == f"gastown-{settings.town_name}-{digest}"


def test_paths_can_be_relative_to_the_root(tmp_path: Path) -> None:
    settings = load(tmp_path, '[daemon]\nlog_file = "x/y.log"\npid_file = "/run/p"\ntmux_socket = "/run/s"')
    assert settings.log_file == tmp_path / "x" / "y.log"
    assert settings.pid_file == Path("/run/p")
    assert settings.tmux_socket == "/run/s"


def test_the_host_defaults_to_the_machines_name(tmp_path: Path) -> None:
    assert load(tmp_path).model_copy(update={"machine": "my host's"}).host == "my-host-s"
    assert load(tmp_path, GASTOWN_HOST="h1").host == "h1"


def test_arguments_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    toml = '[daemon]\nworkers = 3\nquarantine = "1h"\nfresh_after = 7'
    settings = load(
        tmp_path, toml, {"workers": 5, "quarantine": None}, GASTOWN_WORKERS="4", GASTOWN_QUARANTINE="90s"
    )
    assert (settings.daemon.workers, settings.daemon.quarantine) == (5, 90)
    assert (settings.daemon.fresh_after, settings.daemon.restart_backoff) == (7, 30)


@pytest.mark.parametrize("key", DaemonSettings.model_fields)
def test_every_key_has_its_variable(tmp_path: Path, key: str) -> None:
    values = {"host": "h", "tmux_socket": "s", "log_file": "l", "pid_file": "p", "redis_url": "unix:///s"}
    values |= {"agent_redis_url": "unix:///a", "log_size": "7MB"}
    text = values.get(key, "yes" if key == "require_incarnation" else "7")
    settings = load_settings(tmp_path, environ={f"GASTOWN_{key.upper()}": text})
    assert getattr(settings.daemon, key) != getattr(DaemonSettings(), key)


def test_empty_variables_and_those_of_agents_are_ignored(tmp_path: Path) -> None:
    environ = {"GASTOWN_WORKERS": "", "GASTOWN_AGENT": "mayor/", "GASTOWN_INCARNATION": "x", "GASTOWN_X": "y"}
    assert load_settings(tmp_path, environ=environ).daemon == DaemonSettings()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (
            '[daemon]\nworkers = 2\nheartbeat_intervall = "5m"',
            "town.toml, line 3: [daemon] heartbeat_intervall is not a setting; "
            "did you mean heartbeat_interval?",
        ),
        (
            '\n[daemon]\nheartbeat_interval = "soon"',
            'town.toml, line 3: [daemon] heartbeat_interval = "soon": expected a duration such as '
            '"5m", "90s" or a number of seconds',
        ),
        (
            "[daemon]\nheartbeat_interval = 0.9",
            "line 2: [daemon] heartbeat_interval = 0.9: expected a duration",
        ),
        ("[daemon]\nworkers = 0", "[daemon] workers = 0: expected a whole number from 1 to 64"),
        ("[daemon]\nworkers = 65", "expected a whole number from 1 to 64"),
        ("[daemon]\nworkers = true", "[daemon] workers = true: expected a whole number"),
        ("[daemon]\nquarantine = true", "[daemon] quarantine = true: expected a duration"),
        ("[daemon]\nquarantine = inf", "[daemon] quarantine = Infinity: expected a duration"),
        ("[daemon]\npoke_backoff_factor = nan", "expected a number from 1 to 100"),
        ("[daemon]\nlog_size = 99999", '[daemon] log_size = 99999: expected a size such as "10MB"'),
        ('[daemon]\nlog_size = "10 miles"', 'log_size = "10 miles": expected a size such as "10MB"'),
        ("[daemon]\nlog_size = true", "log_size = true: expected a size"),
        ("[daemon]\nevents_kept = 0", "[daemon] events_kept = 0: expected a whole number, 1 or more"),
        ('[daemon]\nrequests_kept = "7 days"', '[daemon] requests_kept = "7 days": expected a duration'),
        ("[daemon]\nrequests_kept = 0", "requests_kept = 0.0: expected a duration"),
        ('[daemon]\nspare = ["!tmx"]', '[daemon] spare = ["!tmx"]: expected a list such as'),
        ('[daemon]\nspare = [""]', '[daemon] spare = "": expected a list such as'),
        ("[daemon]\nlogsize = 5", "[daemon] logsize is not a setting; did you mean log_size?"),
        (
            '[daemon]\n\nredis_url = "http://x"',
            "town.toml, line 3: [daemon] redis_url = \"http://x\": unknown scheme 'http'; expected a URL "
            "that begins with redis://, rediss://, unix:// or sentinel://",
        ),
        (
            '[daemon]\nagent_redis_url = "redis://h:99999"',
            'line 2: [daemon] agent_redis_url = "redis://h:99999": it cannot be read',
        ),
        ('[daemon]\nredis_url = "redis://h/x"', "the database after the host must be a number; expected"),
        ('[daemon]\nredis_url = "unix://a/b"', "a unix socket needs three slashes and an absolute path;"),
        ('[daemon]\nredis_url = "redis://a b"', "it contains white space"),
        ('[daemon]\ntmux_socket = "a/b"', "a name from A-Z a-z 0-9 . _ - or an absolute path"),
        ('[daemon]\nhost = "a b"', "[daemon] host = "),
        ("[daemon]\nlog_file = 1979-05-27", '[daemon] log_file = "1979-05-27": expected a path'),
        ("x = 1\ndaemon = 3", "town.toml, line 2: daemon = 3: expected a table [daemon]"),
        ('town_name = ""', 'town.toml, line 1: town_name = "": expected a name'),
        ("[deamon]\nworkers = 3", "town.toml, line 1: deamon is not a setting; did you mean daemon?"),
        ("[roles.wittness]", "town.toml, line 1: [roles.wittness] is not a role; did you mean witness?"),
        (
            "[roles.crew]\n\nsesion = 'x'",
            "line 3: [roles.crew] sesion is not a setting; did you mean session?",
        ),
        ("[roles]\ncrew = 5", "line 2: roles.crew = 5: expected tables such as [roles.crew]"),
        ("[agents.'a/b']\ncommand = ''", 'line 2: [agents."a/b"] command = "": expected a command'),
        (
            "[agents.'a/b']\nsession = 'a.b'",
            'line 2: [agents."a/b"] session = "a.b": expected a tmux session',
        ),
        ("[agents.'a/b']\nsession = 'a:{rig}'", "expected a tmux session name from A-Z a-z 0-9 _ -"),
        ("[agents.'a/b']\nsession = '{prompt}'", "expected a tmux session name"),
        ("[agents.'a/b']\nstop_grace = -1", "stop_grace = -1: expected a duration"),
        ("[agents.'a/b']\nkeep_running = 1", "keep_running = 1: expected true or false"),
        ("[agents.'a/b'.env]\nA = 1", 'line 2: [agents."a/b"] env.A = 1: expected a table of variables'),
        ("[agents.'a b']", 'line 1: [agents."a b"] is not an address'),
        ("[agents.operator]", '[agents."operator"] is not an address'),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, toml: str, words: str) -> None:
    assert words in error_of(tmp_path, toml)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    assert len(error_of(tmp_path, "[daemon]\nworkers = 0\nhost = ''\nfoo = 1").splitlines()) == 3


def test_a_mistake_counts_even_where_another_source_overrides_it(tmp_path: Path) -> None:
    assert "town.toml, line 2" in error_of(tmp_path, "[daemon]\nworkers = 0", {"workers": 3})
    assert "GASTOWN_WORKERS" in error_of(tmp_path, "", {"workers": 3}, GASTOWN_WORKERS="x")


def test_mistakes_outside_the_file_are_named(tmp_path: Path) -> None:
    assert error_of(tmp_path, GASTOWN_WORKERS="x") == (
        'GASTOWN_WORKERS = "x": expected a whole number from 1 to 64'
    )
    assert "argument workers = 99: expected" in error_of(tmp_path, "", {"workers": 99})
    assert "argument worker is not a setting; did you mean workers?" in error_of(tmp_path, "", {"worker": 1})


def test_passwords_and_variables_of_agents_stay_out_of_errors(tmp_path: Path) -> None:
    text = error_of(tmp_path, '[daemon]\nredis_url = "htp://u:se/cr@et@h"\n[agents.x.env]\n"A=" = "secret2"')
    assert "://***@h" in text
    assert "se/cr" not in text
    assert "secret2" not in error_of(tmp_path, '[agents.x.env]\n"A=" = "secret2"')
    assert "hunter2" not in error_of(tmp_path, GASTOWN_REDIS_URL="redis://h?password=hunter2&x=1")
    assert "hunter2" not in error_of(tmp_path, GASTOWN_REDIS_URL="u:hunter2@h")


def test_declarations_of_agents_are_read(tmp_path: Path) -> None:
    toml = """
        [roles.crew]
        session = "gt-{town}-{rig}-{role}-{name}"
        poke = ""
        [agents."ops/night"]
        command = "run {prompt}"
        stop_grace = "1m"
        keep_running = false
        host = "h2"
        env = { A = "1" }
    """
    settings = load(tmp_path, toml)
    assert settings.roles["crew"].session == "gt-{town}-{rig}-{role}-{name}"
    assert settings.roles["crew"].poke == ""
    night = settings.agents["ops/night"]
    assert (night.stop_grace, night.keep_running, night.host) == (60, False, "h2")
    assert (night.env, night.work_dir) == ({"A": "1"}, None)


def test_an_agents_settings_override_its_roles(tmp_path: Path) -> None:
    toml = (
        '[roles.crew]\npoke = "hey"\nkeep_running = true\nenv = {A = "1", B = "2"}\n'
        '[agents."r/crew/x"]\npoke = ""\nkeep_running = false\nenv = {B = "3"}'
    )
    settings = load(tmp_path, toml)
    both = settings.agents["r/crew/x"].merged_over(settings.roles["crew"])
    assert (both.poke, both.keep_running, both.env) == ("", False, {"A": "1", "B": "3"})


@pytest.mark.parametrize(
    ("folder", "declared", "name"),
    [("Gas Town", None, "gas-town"), ("x", "My_Tówn.1", "my-t-wn-1"), ("GT-2", None, "gt-2")],
)
def test_the_town_has_a_name(tmp_path: Path, folder: str, declared: str | None, name: str) -> None:
    (tmp_path / folder).mkdir()
    toml = f'town_name = "{declared}"' if declared else ""
    assert load(tmp_path / folder, toml).town_name == name


@given(st.text(min_size=1), st.none() | st.text(min_size=1))
def test_a_town_name_is_safe_everywhere(folder: str, declared: str | None) -> None:
    root = Path("/t", folder.replace("/", "-").replace(".", "-"))
    assert re.fullmatch(r"[a-z0-9-]+", town_name(root, declared))


def test_a_folder_that_gives_no_name_is_an_error() -> None:
    with pytest.raises(SettingsError, match="set town_name"):
        town_name(Path("/"), None)


def test_two_paths_to_a_town_are_one_town(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    first, second = (load(tmp_path / way) for way in ("real", "link"))
    assert (first.town_root, first.town_name, first.tmux_socket) == (
        second.town_root,
        second.town_name,
        second.tmux_socket,
    )


def test_a_town_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="none is not a folder"):
        load_settings(tmp_path / "none", environ={})


def test_the_nearest_folder_with_a_town_file_is_the_town(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    for town in (tmp_path, tmp_path / "a"):
        (town / "town.toml").touch()
    assert find_town(deep, {}) == tmp_path / "a"
    assert find_town(tmp_path, {}) == tmp_path


def test_the_variable_overrides_the_nearest_folder(tmp_path: Path) -> None:
    (tmp_path / "town.toml").touch()
    (tmp_path / "x").mkdir()
    assert find_town(tmp_path, {"GASTOWN_TOWN": str(tmp_path / "x")}) == tmp_path / "x"
    with pytest.raises(SettingsError, match=r"GASTOWN_TOWN = .*nowhere.*expected a folder"):
        find_town(tmp_path, {"GASTOWN_TOWN": "nowhere"})


def test_no_town_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no town\.toml in .* or above: give --town"):
        find_town(tmp_path, {})
