import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gastown_mail.contracts.address import (
    DEFAULT_COMMAND,
    Agent,
    ParsedAddress,
    parse_address,
    parse_hyphenated,
)
from gastown_mail.contracts.errors import AddressError, SettingsError
from gastown_mail.contracts.settings import load_settings
from gastown_mail.town.roster import Roster, load_roster

# Few letters, many hyphens and the words of the forms, so that names collide.
NAMES = st.lists(
    st.sampled_from(["a", "b", "crew", "polecat", "witness", "refinery"]), min_size=1, max_size=3
).map("-".join)
AGENTS = st.lists(st.tuples(st.sampled_from(["crew", "polecats"]), NAMES, NAMES), max_size=12)


def by_session(roster: Roster, name: str) -> Agent | None:
    return next((agent for agent in roster.agents.values() if agent.session == name), None)


def make(root: Path, *folders: str, toml: str = "") -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "town.toml").write_text(toml)
    return root


def roster_of(root: Path, *folders: str, toml: str = "") -> Roster:
    return load_roster(load_settings(make(root, *folders, toml=toml), environ={"GASTOWN_HOST": "h"}))


def rig(name: str, *agents: str) -> Iterable[str]:
    return (f"{name}/.beads", *(f"{name}/{agent}" for agent in agents))


def refusal(roster: Roster, spelling: str) -> str:
    with pytest.raises(AddressError) as caught:
        roster.resolve(spelling)
    return str(caught.value)


def test_the_agents_of_a_town_are_found_on_disk(tmp_path: Path) -> None:
    folders = [
        *rig("gastown", "witness", "refinery", "crew/max", "polecats/nux"),
        "mayor",
        "deacon",
        "daemon/x",
    ]
    roster = roster_of(tmp_path, *folders)
    found = {
        address: (agent.role, agent.session, agent.work_dir.relative_to(tmp_path).as_posix())
        for address, agent in roster.agents.items()
    }
    assert found == {
        "mayor/": ("mayor", "gt-mayor", "."),
        "deacon/": ("deacon", "gt-deacon", "."),
        "gastown/witness": ("witness", "gt-gastown-witness", "gastown"),
        "gastown/refinery": ("refinery", "gt-gastown-refinery", "gastown/refinery/rig"),
        "gastown/crew/max": ("crew", "gt-gastown-crew-max", "gastown/crew/max"),
        "gastown/polecats/nux": ("polecat", "gt-gastown-nux", "gastown/polecats/nux"),
    }
    assert roster.warnings == ()
    assert roster.rigs == {"gastown"}


def test_undeclared_values_have_the_documented_defaults(tmp_path: Path) -> None:
    roster = roster_of(tmp_path, *rig("r", "witness", "crew/x"), "deacon")
    assert {agent.command for agent in roster.agents.values()} == {DEFAULT_COMMAND}
    assert {agent.stop_grace for agent in roster.agents.values()} == {5}
    assert {agent.host for agent in roster.agents.values()} == {"h"}
    assert [agent.address for agent in roster.agents.values() if agent.keep_running] == []
    assert roster.resolve("r/witness").poke == "HEARTBEAT: check your workers"
    assert roster.resolve("r/crew/x").poke is None


@pytest.mark.parametrize(
    ("canonical", "spellings"),
    [
        ("mayor/", ["mayor/", "mayor"]),
        ("deacon/", ["deacon/", "deacon"]),
        ("my-rig/witness", ["my-rig/witness", "my-rig-witness"]),
        ("my-rig/refinery", ["my-rig/refinery", "my-rig-refinery"]),
        ("my-rig/crew/max-2", ["my-rig/crew/max-2", "my-rig-crew-max-2", "my-rig/max-2"]),
        ("my-rig/polecats/nux", ["my-rig/polecats/nux", "my-rig-polecat-nux", "my-rig/nux"]),
        ("my-rig/polecats/max-2", ["my-rig/polecats/max-2", "my-rig-polecat-max-2"]),
        ("ops/night", ["ops/night"]),
    ],
)
def test_every_spelling_means_its_agent(tmp_path: Path, canonical: str, spellings: list[str]) -> None:
    agents = ("witness", "refinery", "crew/max-2", "polecats/nux", "polecats/max-2")
    toml = '[agents."ops/night"]\ncommand = "x"'
    roster = roster_of(tmp_path, *rig("my-rig", *agents), *rig("my", "witness"), "mayor", "deacon", toml=toml)
    assert {roster.resolve(spelling).address for spelling in spellings} == {canonical}


@pytest.mark.parametrize(
    ("spelling", "words"),
    [
        ("nope/witness", "this town has no rig nope; its rigs are a, b-c"),
        ("nope/crew/x", "this town has no rig nope"),
        ("nope/x", "this town has no rig nope"),
        ("nope-witness", "this town has no rig nope"),
        ("a/crew/nobody", "there is no agent"),
        ("a/nobody", "there is no agent"),
        ("a/refinery", "there is no agent"),
        ("a-crew-nobody", "there is no agent"),
        ("mayor/", "there is no agent"),
        ("operator", "operator is a person"),
        ("", "is not an address: expected mayor/, deacon/, <rig>/witness"),
        ("gt-a-witness-x", "is not an address"),
        ("a/witness\n", "is not an address"),
        ("a/witness/", "is not an address"),
        ("\ud800", "is not an address"),
        ("x" * 10_000, "is not an address"),
    ],
)
def test_an_address_of_no_agent_is_refused_with_the_reason(tmp_path: Path, spelling: str, words: str) -> None:
    reason = refusal(roster_of(tmp_path, *rig("a", "witness"), *rig("b-c")), spelling)
    assert words in reason
    assert len(reason) < 300


def test_a_session_leads_back_to_its_agent(tmp_path: Path) -> None:
    roster = roster_of(tmp_path, *rig("r", "crew/max", "crew/maxine"))
    agent = by_session(roster, "gt-r-crew-max")
    assert agent == roster.resolve("r/max")
    assert by_session(roster, "gt-r-crew-ma") is None


def test_rigs_json_says_which_rigs_there_are(tmp_path: Path) -> None:
    make(tmp_path, "mayor", "one/witness", *rig("two", "witness"))
    (tmp_path / "mayor" / "rigs.json").write_text(json.dumps({"rigs": {"one": {}, "three": {}, "a/b": 1}}))
    roster = roster_of(tmp_path)
    assert roster.rigs == {"one", "three"}
    assert set(roster.agents) == {"mayor/", "one/witness"}
    assert ["rigs.json names a rig 'a/b', which is left out" in note for note in roster.warnings] == [True]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"rigs": []}', '{"rigs": null}', "[" * 90_000, "\udcff"]
)
def test_a_broken_rigs_json_is_named(tmp_path: Path, content: str) -> None:
    make(tmp_path, "mayor")
    (tmp_path / "mayor" / "rigs.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match=r"mayor/rigs\.json is broken: expected JSON"):
        roster_of(tmp_path)


def test_a_folder_in_the_place_of_rigs_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*rigs\.json"):
        roster_of(tmp_path, "mayor/rigs.json")


def test_without_rigs_json_a_rig_holds_beads_or_a_config(tmp_path: Path) -> None:
    make(
        tmp_path,
        "one/.beads",
        "two",
        "three",
        "mayor/.beads",
        "deacon/.beads",
        "daemon/.beads",
        ".git/.beads",
    )
    (tmp_path / "two" / "config.json").touch()
    assert roster_of(tmp_path).rigs == {"one", "two"}


def test_odd_things_in_a_rig_are_ignored(tmp_path: Path) -> None:
    make(tmp_path, *rig("r", "crew/ok", "crew/.hidden", "crew/a b", "crew/a.b", "crew/ä"))
    crew = tmp_path / "r" / "crew"
    (crew / "file").touch()
    (crew / "circle").symlink_to("circle")
    (crew / "nowhere").symlink_to("/nonexistent/x")
    (crew / "linked").symlink_to(crew / "ok")
    (tmp_path / "r" / "polecats").touch()
    (tmp_path / "file").touch()
    assert set(roster_of(tmp_path).agents) == {"r/crew/ok"}


def test_a_declaration_wins_over_its_role_and_that_over_the_defaults(tmp_path: Path) -> None:
    toml = """
        town_name = "tt"
        [roles.crew]
        command = "role {name}"
        work_dir = "{town}/work/{rig}-{name}"
        poke = "hello {name}"
        env = { A = "{rig}", B = "2" }
        stop_grace = 0
        [agents."r-crew-x"]
        command = "mine"
        session = "s-{town}-{role}"
        poke = ""
        keep_running = true
        env = { B = "3" }
        host = "h2"
        work_dir = "elsewhere"
    """
    roster = roster_of(tmp_path, *rig("r", "crew/x", "crew/y"), toml=toml)
    x, y = roster.resolve("r/crew/x"), roster.resolve("r/y")
    assert (x.command, x.session, x.poke, x.keep_running, x.host) == ("mine", "s-tt-crew", None, True, "h2")
    assert (x.env, x.stop_grace, x.work_dir) == ({"A": "r", "B": "3"}, 0, tmp_path / "elsewhere")
    assert (y.command, y.session, y.poke, y.keep_running) == ("role {name}", "gt-r-crew-y", "hello y", False)
    assert (y.env, y.host, y.work_dir) == ({"A": "r", "B": "2"}, "h", tmp_path / "work" / "r-y")


def test_declared_agents_need_no_folders_and_bring_their_rig(tmp_path: Path) -> None:
    toml = '[agents."far/crew/x"]\n[agents.mayor]\n[agents."far/y"]\n[agents."far-witness"]\n'
    roster = roster_of(tmp_path, toml=toml)
    assert set(roster.agents) == {"far/crew/x", "mayor/", "far/polecats/y", "far/witness"}
    assert roster.rigs == {"far"}
    assert roster.resolve("far/x").work_dir == tmp_path / "far" / "crew" / "x"


def test_a_short_declaration_means_the_existing_crew_member(tmp_path: Path) -> None:
    roster = roster_of(tmp_path, *rig("r", "crew/x", "polecats/x"), toml='[agents."r/x"]\ncommand = "mine"')
    assert roster.resolve("r/crew/x").command == "mine"
    assert roster.resolve("r/polecats/x").command == DEFAULT_COMMAND


def test_an_agent_of_no_known_form_is_as_declared(tmp_path: Path) -> None:
    toml = '[roles.agent]\nenv = {A = "1"}\n[agents."ops/night/"]\ncommand = "x {name}"\n'
    agent = roster_of(tmp_path, toml=toml).resolve("ops/night/")
    assert (agent.role, agent.rig, agent.name, agent.session) == ("agent", "", "night", "gt-ops-night")
    assert (agent.work_dir, agent.poke, agent.keep_running, agent.env) == (tmp_path, None, False, {"A": "1"})
    assert agent.command_line("p", tmp_path) == "x night"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[agents."ops/night"]', r'\[agents\."ops/night"\] needs a command'),
        ('[agents.mayor]\n[agents."mayor/"]', r'\[agents\."mayor"\] and \[agents\."mayor/"\] are one agent'),
        ('[agents."r/x"]\n[agents."r/polecats/x"]', "are one agent"),
        (
            '[agents."r/crew/x"]\nsession = "gt-mayor"\n[agents.mayor]',
            "the session gt-mayor would be that of",
        ),
        ('[agents.mayor]\nsession = "{rig}"', 'gives mayor/ the name "": expected a name'),
        (
            '[agents."a-crew-b-crew-c"]\n[agents."a/witness"]\n[agents."a-crew-b/witness"]',
            "can mean a/crew/b-crew-c or a-crew-b/crew/c",
        ),
    ],
)
def test_declarations_that_contradict_each_other_are_settings_errors(
    tmp_path: Path, toml: str, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        roster_of(tmp_path, toml=toml)


@pytest.mark.parametrize(
    ("agents", "kept", "lost"),
    [
        (["witness", "polecats/witness"], "r/witness", "r/polecats/witness"),
        (["crew/x", "polecats/crew-x"], "r/crew/x", "r/polecats/crew-x"),
    ],
)
def test_of_two_agents_with_one_session_only_the_higher_ranked_is_accepted(
    tmp_path: Path, agents: list[str], kept: str, lost: str
) -> None:
    roster = roster_of(tmp_path, *rig("r", *agents))
    assert set(roster.agents) == {kept}
    session = roster.agents[kept].session
    assert f"{lost} is left out: the session {session} would be that of {kept} and of {lost}" in refusal(
        roster, lost
    )
    assert refusal(roster, lost) in roster.warnings
    assert by_session(roster, session) == roster.agents[kept]


def test_a_declared_session_is_taken_from_one_that_was_found(tmp_path: Path) -> None:
    toml = '[agents."r/polecats/x"]\nsession = "gt-mayor"'
    roster = roster_of(tmp_path, "mayor", toml=toml)
    assert set(roster.agents) == {"r/polecats/x"}
    assert "mayor/ is left out" in refusal(roster, "mayor")


def test_the_spelling_of_a_rejected_agent_names_no_other(tmp_path: Path) -> None:
    roster = roster_of(tmp_path, *rig("r", "polecats/witness"))
    assert "there is no agent" in refusal(roster, "r/witness")
    assert roster.resolve("r-polecat-witness").address == "r/polecats/witness"


def test_a_spelling_of_two_agents_is_ambiguous_and_their_own_addresses_are_not(tmp_path: Path) -> None:
    roster = roster_of(tmp_path, *rig("a", "polecats/b-witness"), *rig("a-polecat-b", "witness"))
    assert "can mean a-polecat-b/witness or a/polecats/b-witness" in refusal(roster, "a-polecat-b-witness")
    for address in ("a-polecat-b/witness", "a/polecats/b-witness"):
        assert roster.resolve(address).address == address


def readings(spelling: str, rigs: Iterable[str]) -> set[str]:
    """Return the addresses that a spelling can mean in a town with these rigs, by the contract's table."""
    form = parse_address(spelling)
    if form:
        return {form.address}
    first, slash, name = spelling.partition("/")
    if slash:
        return {ParsedAddress("crew", first, name).address, ParsedAddress("polecat", first, name).address}
    return {each.address for each in parse_hyphenated(spelling) if each.rig in set(rigs)}


@settings(deadline=None, max_examples=60)
@given(agents=AGENTS, witnesses=st.lists(NAMES, max_size=3))
def test_spellings_lead_to_the_agent_to_its_session_and_back(
    tmp_path_factory: pytest.TempPathFactory, agents: list[tuple[str, str, str]], witnesses: list[str]
) -> None:
    folders = [folder for kind, name, member in agents for folder in rig(name, f"{kind}/{member}")]
    roster = roster_of(
        tmp_path_factory.mktemp("town"),
        *folders,
        *(part for name in witnesses for part in rig(name, "witness")),
    )
    made = {f"{name}/{kind}/{member}" for kind, name, member in agents} | {
        f"{name}/witness" for name in witnesses
    }
    assert set(roster.agents) | set(roster.rejected) == made
    assert len({agent.session for agent in roster.agents.values()}) == len(roster.agents)
    for address, agent in roster.agents.items():
        assert roster.resolve(address) is agent
        assert by_session(roster, agent.session) is agent
        for spelling in (*agent.spellings(), f"{agent.rig}/{agent.name}", f"{agent.rig}-{agent.name}"):
            assert_right_or_refused(roster, spelling)


def assert_right_or_refused(roster: Roster, spelling: str) -> None:
    try:
        meant = roster.resolve(spelling).address
    except AddressError:
        existing = readings(spelling, roster.rigs) & {*roster.agents, *roster.rejected}
        alone = existing.pop() if len(existing) == 1 else ""
        assert alone not in roster.agents
    else:
        assert meant in readings(spelling, roster.rigs)


def test_a_thousand_agents_are_read(tmp_path: Path) -> None:
    folders = [f"rig{r}/{kind}/n{n}" for r in range(10) for kind in ("crew", "polecats") for n in range(50)]
    town = load_settings(make(tmp_path, *folders, *(f"rig{r}/.beads" for r in range(10))), environ={})

    assert len(load_roster(town).agents) == 1000


def test_what_is_only_found_on_disk_is_not_started(tmp_path: Path) -> None:
    for folder in ("mayor", "deacon", "rig/crew/x", "rig/witness", "named/crew/y"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "rig/config.json").touch()
    roles = "[roles.crew]\nkeep_running = true\n[roles.deacon]\nkeep_running = true"
    (tmp_path / "town.toml").write_text(roles)

    found = load_roster(load_settings(tmp_path, environ={})).agents

    assert set(found) == {"mayor/", "deacon/", "rig/crew/x", "rig/witness"}
    assert [agent for agent in found.values() if agent.keep_running] == []
    (tmp_path / "mayor/rigs.json").write_text('{"rigs": {"named": {}}}')
    named = load_roster(load_settings(tmp_path, environ={})).agents
    assert [agent.address for agent in named.values() if agent.keep_running] == ["named/crew/y"]


def test_a_declared_agent_is_kept_running_as_its_role_says(tmp_path: Path) -> None:
    (tmp_path / "town.toml").write_text('[agents."deacon/"]\n[agents."mayor/"]')

    agents = load_roster(load_settings(tmp_path, environ={})).agents

    assert {address: agent.keep_running for address, agent in agents.items()} == {
        "deacon/": True,
        "mayor/": False,
    }


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real/crew/x").mkdir(parents=True)
    (tmp_path / "real/config.json").touch()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real/polecats").symlink_to("/etc")
    (tmp_path / "real/crew/etc").symlink_to("/etc")

    assert set(load_roster(load_settings(tmp_path, environ={})).agents) == {"real/crew/x"}


def test_a_person_may_give_the_last_part_of_an_address(tmp_path: Path) -> None:
    names = ("api/crew/max", "api/crew/ann", "web/crew/ann", "mayor/")
    toml = "\n".join(f'[agents."{name}"]' for name in names)
    roster = roster_of(tmp_path, toml=toml)

    assert [roster.pick(text).address for text in ("max", "api/max", "mayor")] == [
        "api/crew/max", "api/crew/max", "mayor/",
    ]  # fmt: skip
    with pytest.raises(AddressError, match="can mean api/crew/ann or web/crew/ann: write one of these"):
        roster.pick("ann")
    with pytest.raises(AddressError, match="gastown-mail agents lists the agents"):
        roster.pick("ma")
    with pytest.raises(AddressError, match="is not an address"):
        roster.resolve("max")
