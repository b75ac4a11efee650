"""The package: version, typing marker, template, public names, and the cost of importing them."""

import ast
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points, requires, version
from importlib.resources import files
from pathlib import Path

import pytest

import gastown_mail
from gastown_mail.cli import COMMANDS
from gastown_mail.contracts import errors
from gastown_mail.contracts.keys import Keys
from gastown_mail.contracts.request import decode_element
from gastown_mail.contracts.settings import load_settings

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def test_the_installed_version_is_the_one_of_the_repository() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    assert version("gastown-mail") == project["version"]


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="gastown-mail")

    assert callable(command.load())


def test_every_dependency_is_pinned() -> None:
    pinned = (REPOSITORY / "constraints.txt").read_text().lower().replace("_", "-")
    names = [
        line.partition(";")[0].partition("<")[0].partition(">")[0] for line in requires("gastown-mail") or []
    ]

    assert names
    assert [name for name in names if f"\n{name.strip().lower()}==" not in pinned] == []


def test_constraints_are_only_names_and_versions() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()[1:]

    assert [line for line in lines if line.count("==") != 1 or set(line) & set(" /:@")] == []


def test_types_are_shipped() -> None:
    assert files("gastown_mail").joinpath("py.typed").is_file()


def test_the_template_is_shipped_and_matches_the_defaults(tmp_path: Path) -> None:
    defaults = load_settings(tmp_path, environ={})
    template = files("gastown_mail").joinpath("cli", "town.toml").read_text()
    (tmp_path / "town.toml").write_text(template)

    assert "[daemon]" in template
    assert load_settings(tmp_path, environ={}) == defaults


def test_every_public_name_can_be_imported() -> None:
    for name in gastown_mail.__all__:
        assert getattr(gastown_mail, name).__module__.startswith("gastown_mail."), name


def test_a_type_checker_sees_the_same_public_names() -> None:
    tree = ast.parse(Path(gastown_mail.__file__).read_text())
    seen = [name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names]

    assert sorted(set(seen) - {"import_module", "TYPE_CHECKING", "Any"}) == sorted(gastown_mail.__all__)


def test_the_whole_family_of_errors_is_public() -> None:
    family = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.GastownError)
    }

    assert family <= set(gastown_mail.__all__)


@pytest.mark.parametrize(
    ("use", "spared"),
    [
        ("import gastown_mail; gastown_mail.send_lifecycle", {"click"}),
        ("import gastown_mail.cli.send", set()),
    ],
)
def test_sending_imports_no_more_than_it_needs(use: str, spared: set[str]) -> None:
    program = f"{use}; import sys; print(sorted({{name.partition('.')[0] for name in sys.modules}}))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    imported = set(ast.literal_eval(answer.stdout))

    assert "redis" in imported
    assert imported & {"pydantic", "rq", "rq_scheduler", "psutil", *spared} == set()


def test_the_readme_names_every_command_and_no_other() -> None:
    table = README.partition("## Commands")[2].partition("## ")[0].splitlines()
    rows = [line for line in table if line.startswith("| ") and "`" in line]
    named = [word for row in rows for word in re.findall(r"`([\w-]+)`", row)]

    assert sorted(named) == sorted(COMMANDS)


def test_the_readme_names_every_folder_of_the_package_and_no_other() -> None:
    folders = {file.parent.name for file in Path(gastown_mail.__file__).parent.glob("*/__init__.py")}

    assert sorted(re.findall(r"^gastown_mail/(\w+)/", README, re.MULTILINE)) == sorted(folders)


def test_the_readmes_request_is_valid() -> None:
    lines = re.search(r"^(now=.*)\n(?:.*\n)+?  ('\{.*\}')$", README, re.MULTILINE)
    assert lines
    element = subprocess.check_output(["bash", "-c", f"{lines[1]}; printf %s {lines[2]}"], timeout=30)
    _, request = decode_element(element)

    assert (request.action, request.target) == ("restart", "myrig/crew/max")
    assert abs(datetime.now(UTC) - request.timestamp) < timedelta(minutes=1)
    assert f"RPUSH '{Keys('mytown').inbox}'" in README
