"""The compose how-tos name only what exists; with an engine, `tests/compose` runs their commands."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from gastown_mail.plumbing.connections import connect
from tests.compose.stack import works
from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.commands import refusal, simple_commands
from tests.docs.play import load_text
from tests.support.redis import OwnServer

DOCUMENTS = sorted((ROOT / "docs/how-to").glob("compose*.md"))
FILES = [ROOT / "docker-compose.yml", *sorted((ROOT / "docker").glob("compose.*.yml"))]
COMPOSE = "\n".join(file.read_text() for file in FILES)
TESTED = "\n".join(file.read_text() for file in (ROOT / "tests/compose").glob("*.py"))
SERVICES = set(re.findall(r"^  (\w+):$", COMPOSE.partition("\nservices:")[2], re.MULTILINE))
PROGRAMS = {"cat", "docker", "echo", "gastown-mail", "mkdir", "rq", "tmux"}
BY_HAND = {"build", "stop"}
"""Done before and after the tests with other commands: `docker image`, `down`."""


def of_language(language: str, documents: Sequence[Path] = DOCUMENTS) -> list[Block]:
    return [one for document in documents for one in blocks(document.read_text()) if one.language == language]


def test_every_command_is_run_by_the_compose_tests() -> None:
    commands = [command for block in of_language("sh") for command in simple_commands(block.text)]

    assert commands
    assert {command[0] for command in commands} <= PROGRAMS
    for command in commands:
        if command[:2] == ["docker", "compose"]:
            check_compose(command[2:])


def check_compose(words: list[str]) -> None:
    while words[0].startswith("-"):
        assert words[0] == "-f"
        assert (ROOT / words[1]).is_file()
        words = words[2:]
    assert words[0] in BY_HAND or f'"{words[0]}"' in TESTED
    if words[0] == "exec":
        service, *rest = [word for word in words[1:] if word != "-T"]
        assert service in SERVICES
        if rest[0] == "gastown-mail":
            assert refusal(" ".join(rest)) is None


def test_every_variable_is_read_by_the_compose_files() -> None:
    lines = [line for block in of_language("dotenv") for line in block.text.splitlines()]
    names = {line.partition("=")[0] for line in lines} - {"COMPOSE_FILE"}

    assert names
    assert [name for name in names if f"${{{name}" not in COMPOSE] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda value: value.name)
def test_compose_takes_the_variables(document: Path, tmp_path: Path) -> None:
    if not works("docker", "compose", "version"):
        pytest.skip("there is no docker compose to ask")
    lines = [block.text for block in of_language("dotenv", [document])]
    chosen = next((file for file in FILES[1:] if f"docker/{file.name}" in document.read_text()), None)
    (tmp_path / ".env").write_text("".join(lines))
    files = [word for file in (FILES[0], chosen) if file for word in ("-f", str(file))]
    asked = ["docker", "compose", "--env-file", str(tmp_path / ".env"), *files, "config", "--quiet"]

    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr


def test_settings_blocks_load() -> None:
    for block in of_language("toml"):
        text = block.text if block.text.startswith("[") else f"[roles.crew]\n{block.text}"
        load_text(text)


def test_images_build_on_the_projects_image() -> None:
    (block,) = of_language("dockerfile")
    lines = re.sub(r"\\\n", " ", block.text).splitlines()

    assert lines[0] == "FROM gastown-mail"
    assert {line.split()[0] for line in lines} <= {"FROM", "USER", "RUN"}


def test_the_users_of_a_managed_redis_have_the_rights_they_need_and_no_more(server: OwnServer) -> None:
    (block,) = of_language("redis")
    with connect(server.url) as admin:
        for line in block.text.replace("TOWN", "mytown").splitlines():
            assert admin.execute_command(*split_rules(line)) == b"OK"
    with as_user(server, "agent", "PASSWORD2") as agent:
        assert agent.rpush("gastown:{mytown}:inbox", "x") == 1
        assert agent.hgetall("gastown:{mytown}:request:x") == {}
        with pytest.raises(NoPermissionError):
            agent.lpop("gastown:{mytown}:inbox")
    with as_user(server, "daemon", "PASSWORD1") as daemon:
        assert daemon.lpop("gastown:{mytown}:inbox") == b"x"
        with pytest.raises(NoPermissionError):
            daemon.get("another")


def as_user(server: OwnServer, name: str, password: str) -> Redis:
    return connect(server.url.replace("unix://", f"unix://{name}:{password}@"))


def split_rules(line: str) -> list[str]:
    """Return the words of a line; a text in parentheses is one word."""
    return re.findall(r"\([^)]*\)|\S+", line)
