from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.errors import SettingsError
from gastown_mail.contracts.state import Config, default_config

CONFORMANCE = Path(__file__).parent.parent / "conformance"
FILES = sorted(CONFORMANCE.glob("config-*.json"))
PLACES: dict[str, Any] = {"town_root": Path("/t"), "log_file": Path("/t/l"), "pid_file": Path("/t/p")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_go_wrote_is_written_again_byte_for_byte(path: Path) -> None:
    assert Config.decode(path.read_text()).encode().encode() == path.read_bytes()


def test_what_go_wrote_means_what_it_says() -> None:
    config = Config.decode((CONFORMANCE / "config-1500ms.json").read_text())
    assert config.heartbeat_interval == timedelta(milliseconds=1500)
    assert config.town_root == Path("/srv/town with space")


@pytest.mark.parametrize("root", ["/home/me/gt", Path("/home/me/gt")])
def test_the_default_config_is_the_original_programs(root: str | Path) -> None:
    assert default_config(root).encode() == (CONFORMANCE / "config-default.json").read_text()


@given(st.integers(0, 2**62).map(lambda nanos: timedelta(microseconds=nanos // 1000)))
def test_a_config_reads_as_itself(interval: timedelta) -> None:
    config = Config(heartbeat_interval=interval, **PLACES)
    assert Config.decode(config.encode()) == config


@pytest.mark.parametrize(
    ("written", "seconds"), [("5m", 300), ("1h30m", 5400), ("90", 90), (90, 90), (0.5, 0.5)]
)
def test_durations_written_by_people_work(written: str | float, seconds: float) -> None:
    config = Config.model_validate({"heartbeat_interval": written, **PLACES})
    assert config.heartbeat_interval == timedelta(seconds=seconds)


def test_a_text_in_the_file_is_a_duration_too() -> None:
    text = Config(**PLACES).encode().replace("300000000000", '"90s"')
    assert Config.decode(text).heartbeat_interval == timedelta(seconds=90)


def test_html_in_paths_is_escaped_as_go_does() -> None:
    assert r'"town_root": "/a\u0026b/\u003cü\u003e"' in default_config("/a&b/<ü>").encode()


@pytest.mark.parametrize("interval", ["-1", "1.5e9", "true", "null", '"soon"', str(2**63), "[]"])
def test_a_bad_interval_is_named(interval: str) -> None:
    text = Config(**PLACES).encode().replace("300000000000", interval)
    with pytest.raises(SettingsError, match=r"heartbeat_interval = .*expected"):
        Config.decode(text)


def test_a_missing_path_is_named() -> None:
    with pytest.raises(SettingsError, match="town_root is missing: expected a folder"):
        Config.decode("{}")


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(SettingsError, match="not JSON"):
        Config.decode("{")
