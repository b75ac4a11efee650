import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts.address import (
    ADDRESS_PATTERN,
    DEFAULT_COMMAND,
    ROLES,
    Agent,
    ParsedAddress,
    parse_address,
    parse_hyphenated,
    render_template,
)

NAMES = st.from_regex(r"\A[A-Za-z0-9_-]{1,12}\Z")
FORMS = st.builds(lambda role, rig, name: made(role, rig, name), st.sampled_from(list(ROLES)), NAMES, NAMES)
MAX = Agent(
    address="gastown/crew/max",
    role="crew",
    rig="gastown",
    name="max",
    session="gt-gastown-crew-max",
    work_dir=Path("/t/gastown/crew/max"),
    command=DEFAULT_COMMAND,
    poke=None,
    keep_running=False,
    stop_grace=5.0,
    env={},
    host="h",
)


def made(role: str, rig: str, name: str) -> ParsedAddress:
    address = ROLES[role].address
    return ParsedAddress(role, rig if "{rig}" in address else "", name if "{name}" in address else "")


@given(FORMS)
def test_a_canonical_address_reads_as_its_own_form(form: ParsedAddress) -> None:
    assert parse_address(form.address) == form
    assert ADDRESS_PATTERN.match(form.address)


@given(FORMS)
def test_the_readings_of_a_hyphenated_spelling_include_the_right_one(form: ParsedAddress) -> None:
    also = render_template(ROLES[form.role].alias, {"rig": form.rig, "name": form.name})
    assert form in [*parse_hyphenated(also), parse_address(also)]


def test_hyphens_can_be_read_in_many_ways() -> None:
    assert set(parse_hyphenated("a-crew-b-crew-c-witness")) == {
        ParsedAddress("witness", "a-crew-b-crew-c"),
        ParsedAddress("crew", "a", "b-crew-c-witness"),
        ParsedAddress("crew", "a-crew-b", "c-witness"),
    }


@pytest.mark.parametrize(
    "text",
    "|/|mayor//|mayor/x|Mayor|rig/boss|rig/crew/|rig/crew/a/b|/witness|r.x/witness|rig/witness/|rig/witness\n"
    "|rig/crew/ä|rig/polecat/x|rig-witness".split("|"),
)
def test_an_address_of_no_known_form_is_refused(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize("text", ["", "-witness", "-crew-x", "r-crew-", "a/b-witness", "witness", "r-crew"])
def test_hyphens_that_fit_no_form_are_refused(text: str) -> None:
    assert list(parse_hyphenated(text)) == []


def test_the_spellings_of_an_agent_begin_with_the_canonical_one() -> None:
    assert MAX.spellings() == ("gastown/crew/max", "gastown-crew-max")
    assert replace(MAX, role="agent", address="librarian").spellings() == ("librarian",)


def test_the_table_of_roles_is_that_of_the_contract() -> None:
    words = {"rig": "<rig>", "name": "<name>"}
    table = {
        render_template(r.address, words): (
            render_template(r.alias, words),
            render_template(r.session, words),
            render_template(r.work_dir, words),
            r.poke,
        )
        for r in ROLES.values()
    }
    assert table == {
        "mayor/": ("mayor", "gt-mayor", "", "HEARTBEAT: check your rigs"),
        "deacon/": ("deacon", "gt-deacon", "", "HEARTBEAT: run your rounds"),
        "<rig>/witness": ("<rig>-witness", "gt-<rig>-witness", "<rig>", "HEARTBEAT: check your workers"),
        "<rig>/refinery": ("<rig>-refinery", "gt-<rig>-refinery", "<rig>/refinery/rig", None),
        "<rig>/crew/<name>": ("<rig>-crew-<name>", "gt-<rig>-crew-<name>", "<rig>/crew/<name>", None),
        "<rig>/polecats/<name>": ("<rig>-polecat-<name>", "gt-<rig>-<name>", "<rig>/polecats/<name>", None),
    }
    assert [role.name for role in ROLES.values() if role.keep_running] == ["deacon"]


@given(st.text().filter(lambda text: "\0" not in text))
def test_the_prompt_is_always_one_word_of_the_shell(prompt: str) -> None:
    assert shlex.split(MAX.command_line(prompt, "/t")) == ["claude", "--dangerously-skip-permissions", prompt]


def test_only_the_known_words_in_braces_are_replaced_and_only_once() -> None:
    agent = replace(MAX, command="run {rig} {name} {role} {town} {x} {} ${HOME} {{name}} {prompt}")
    assert agent.command_line("say {town}", "/a town") == (
        "run gastown max crew '/a town' {x} {} ${HOME} {max} 'say {town}'"
    )


@given(st.text("{}townrigame", max_size=30))
def test_filling_changes_nothing_but_placeholders(text: str) -> None:
    rest = re.sub(r"\{(?:town|rig|name|role|prompt)\}", "", text)
    assert render_template(text, dict.fromkeys(("town", "rig", "name", "role", "prompt"), "")) == rest
