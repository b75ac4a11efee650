import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gastown_mail.contracts.errors import StateFileError
from gastown_mail.contracts.state import State, load_state, save_state, state_file
from tests.unit.moments import MOMENTS

CONFORMANCE = Path(__file__).parent.parent / "conformance"
FILES = sorted(CONFORMANCE.glob("state-*.json"))
STATES = st.builds(
    State,
    running=st.booleans(),
    pid=st.integers(0, 2**63),
    started_at=MOMENTS,
    last_heartbeat=MOMENTS,
    heartbeat_count=st.integers(0, 2**70),
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_go_wrote_is_written_again_byte_for_byte_except_nanoseconds(path: Path) -> None:
    go = path.read_bytes()
    assert State.decode(go.decode()).encode().encode() == re.sub(rb"(\.\d{6})\d{3}", rb"\1", go)


def test_what_go_wrote_means_what_it_says() -> None:
    running = State.decode((CONFORMANCE / "state-running.json").read_text())
    assert running == State(
        running=True,
        pid=4711,
        started_at=datetime(2025, 12, 20, 10, 12, 21, 123456, tzinfo=UTC),
        last_heartbeat=datetime(2025, 12, 20, 10, 17, 21, 123456, tzinfo=UTC),
        heartbeat_count=1,
    )
    stopped = State.decode((CONFORMANCE / "state-utc-stopped.json").read_text())
    assert stopped.heartbeat_count == 2**53 + 1


def test_the_zero_state_is_gos() -> None:
    assert State().encode() == (CONFORMANCE / "state-zero.json").read_text()


@given(STATES)
def test_a_state_reads_as_itself_from_file_and_hash(state: State) -> None:
    assert State.decode(state.encode()) == state
    assert State.decode(state.encode()).encode() == state.encode()
    assert State.from_mapping(state.to_mapping()) == state
    assert State.from_mapping(state.to_mapping()).encode() == state.encode()


def test_the_hash_says_the_same_words_as_the_file() -> None:
    text = (CONFORMANCE / "state-zero.json").read_text()
    assert State.decode(text).to_mapping() == {
        "running": "false",
        "pid": "0",
        "started_at": "0001-01-01T00:00:00Z",
        "last_heartbeat": "0001-01-01T00:00:00Z",
        "heartbeat_count": "0",
    }


def test_a_hash_field_that_is_not_there_was_never_written() -> None:
    assert State.from_mapping({}) == State()
    assert State.from_mapping({"pid": "7", "something": "else"}) == State(pid=7)


@pytest.mark.parametrize(
    ("key", "text"),
    [("running", "yes"), ("pid", "-1"), ("pid", "x"), ("heartbeat_count", "1.5"), ("started_at", "now")],
)
def test_a_bad_hash_field_is_named(key: str, text: str) -> None:
    with pytest.raises(StateFileError, match=rf'the state in Redis: {key} = "{text}": expected '):
        State.from_mapping({key: text})


def test_a_missing_file_is_the_zero_state(tmp_path: Path) -> None:
    assert load_state(tmp_path) == State()


@settings(deadline=None, max_examples=25)
@given(state=STATES)
def test_a_saved_state_is_loaded(tmp_path_factory: pytest.TempPathFactory, state: State) -> None:
    town = tmp_path_factory.mktemp("town")
    save_state(town, state)
    assert load_state(str(town)) == state


def test_the_file_and_its_folder_can_be_read_by_all(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        save_state(tmp_path, State(pid=5))
    finally:
        os.umask(before)
    assert state_file(tmp_path).read_text() == State(pid=5).encode()
    assert stat.S_IMODE(state_file(tmp_path).stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "daemon").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b'{"running": tr', "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "running is missing"),
        (b"\xff", "can't decode byte"),
        (State().encode().replace("false", "0").encode(), "running = 0: expected true or false"),
        (State(pid=3).encode().replace("3", '"3"').encode(), 'pid = "3": expected a whole number'),
        (State().encode().replace("0001", "now", 1).encode(), "started_at = "),
        (State().encode().replace("0\n}", "-1\n}").encode(), "heartbeat_count = -1: expected a whole"),
        (State().encode().replace("0\n}", "1.5\n}").encode(), "heartbeat_count = 1.5: expected a whole"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path: Path, content: bytes, words: str) -> None:
    state_file(tmp_path).parent.mkdir()
    state_file(tmp_path).write_bytes(content)
    with pytest.raises(StateFileError, match=re.escape(words)) as caught:
        load_state(tmp_path)
    assert str(state_file(tmp_path)) in str(caught.value)
    assert "move it away" in str(caught.value)


def test_a_folder_in_place_of_the_file_is_an_error_both_ways(tmp_path: Path) -> None:
    (state_file(tmp_path) / "inner").mkdir(parents=True)
    with pytest.raises(StateFileError, match=r"state\.json"):
        load_state(tmp_path)
    with pytest.raises(StateFileError, match="cannot write"):
        save_state(tmp_path, State())
    assert [path.name for path in state_file(tmp_path).parent.iterdir()] == ["state.json"]


def test_a_state_needs_times_with_zone() -> None:
    with pytest.raises(ValueError, match=r"timezone info"):
        State(started_at=datetime(2025, 1, 1))  # noqa: DTZ001
