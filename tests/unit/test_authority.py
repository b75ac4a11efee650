"""Which sender may ask for which session (docs/reference/contract.md#who-may-ask)."""

import pytest

from gastown_mail.contracts.address import Agent
from gastown_mail.contracts.settings import load_settings
from gastown_mail.lifecycle.decision import is_authorized
from gastown_mail.town.roster import load_roster
from tests.support.town import write_town

EVERYBODY = """
[agents."mayor/"]
[agents."deacon/"]
[agents."gastown/witness"]
[agents."gastown/refinery"]
[agents."gastown/crew/max"]
[agents."gastown/polecats/nux"]
[agents."other/witness"]
[agents."other/crew/max"]
[agents."loner"]
command = "true"
"""
ADDRESSES = (
    "mayor/", "deacon/", "gastown/witness", "gastown/refinery", "gastown/crew/max", "gastown/polecats/nux",
    "other/witness", "other/crew/max", "loner",
)  # fmt: skip


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Agent]:
    settings = write_town(tmp_path_factory.mktemp("towns"), EVERYBODY)
    return dict(load_roster(load_settings(settings.town_root, environ={})).agents)


def test_the_town_has_an_agent_of_every_role(agents: dict[str, Agent]) -> None:
    assert set(agents) == set(ADDRESSES)


@pytest.mark.parametrize("asker", ["mayor/", "deacon/", "operator"])
@pytest.mark.parametrize("target", ADDRESSES)
def test_the_mayor_the_deacon_and_an_operator_may_ask_for_any_agent(
    agents: dict[str, Agent], asker: str, target: str
) -> None:
    assert is_authorized(asker, agents[target])


@pytest.mark.parametrize("target", ADDRESSES)
def test_a_witness_may_ask_for_its_own_rig_only(agents: dict[str, Agent], target: str) -> None:
    assert is_authorized("gastown/witness", agents[target]) == target.startswith("gastown/")
    assert is_authorized("other/witness", agents[target]) == target.startswith("other/")


@pytest.mark.parametrize(
    "asker", ["gastown/refinery", "gastown/crew/max", "gastown/polecats/nux", "other/crew/max", "loner"]
)
@pytest.mark.parametrize("target", ADDRESSES)
def test_any_other_agent_may_ask_for_itself_only(agents: dict[str, Agent], asker: str, target: str) -> None:
    assert is_authorized(asker, agents[target]) == (asker == target)


@pytest.mark.parametrize(
    "asker", ["", "/witness", "witness", "mayor", "MAYOR/", "gastown/witness/", "Operator"]
)
@pytest.mark.parametrize("target", ADDRESSES)
def test_a_sender_that_only_looks_like_an_agent_may_ask_for_none(
    agents: dict[str, Agent], asker: str, target: str
) -> None:
    """Spellings are resolved earlier; an agent without a rig has no witness."""
    assert not is_authorized(asker, agents[target])
