"""With `require_incarnation`, senders prove their identity with a token that only their session knows."""

import secrets
from collections.abc import Callable

import pytest

from gastown_mail.contracts.request import decode_element
from gastown_mail.daemon import jobs
from gastown_mail.lifecycle import carry_out
from gastown_mail.lifecycle.clerk import Clerk
from gastown_mail.mail.requests import DeadLetters
from gastown_mail.sessions.session import Session
from gastown_mail.town.town import Town
from tests.support.agents import MAX, MAXINE, RECORDED, RECORDER, WITNESS
from tests.support.parts import accept_inbox
from tests.support.stage import Stage
from tests.support.town import element, identity

MAYOR = "mayor/"
TOWN = (
    RECORDED
    + f"""
[agents."mayor/"]
command = '''{RECORDER}'''
work_dir = "work/mayor"
"""
)


@pytest.fixture
def strict(make_town: Callable[..., Town]) -> Stage:
    """A town in which senders must prove their identity with their token."""
    made = Stage(make_town(TOWN.replace("[daemon]\n", "[daemon]\nrequire_incarnation = true\n")))
    jobs.serving.set(made.town)
    return made


@pytest.fixture
def lenient(make_town: Callable[..., Town]) -> Stage:
    """The same town without `require_incarnation`."""
    return Stage(make_town(TOWN))


def through_the_inbox(stage: Stage, sender: str, action: str = "restart", **more: object) -> str:
    """Send a request like any program that reaches Redis; return its id."""
    wish = element(sender, action, id=f"proof-{secrets.token_hex(4)}", **more)
    stage.town.redis.rpush(stage.town.keys.inbox, wish)
    accept_inbox(stage.town)
    return decode_element(wish)[0]


def refused(stage: Stage, ident: str, session: Session, why: str) -> None:
    """Check that the request is a dead letter with this reason and the session is the same."""
    assert stage.again(ident) == "refused"
    assert why in stage.detail(ident)
    assert stage.town.redis.zscore(stage.town.keys.dead, ident) is not None
    assert identity(stage.living()) == identity(session)


@pytest.mark.parametrize("action", ["cycle", "restart", "shutdown"])
@pytest.mark.parametrize("token", ["none", "right"])
def test_no_sender_becomes_the_operator_through_the_inbox(strict: Stage, action: str, token: str) -> None:
    session = strict.run()
    proof = {"incarnation": session.incarnation} if token == "right" else {}

    ident = through_the_inbox(strict, "operator", action, to=MAX, **proof)

    refused(strict, ident, session, "use gastown-mail send")


def test_a_request_stored_past_the_inbox_is_carried_out(strict: Stage) -> None:
    session = strict.run()
    wish = element("operator", "restart", to=MAX)

    Clerk(strict.town).accept([wish], trusted=True)

    assert strict.again(decode_element(wish)[0]) == "done"
    assert identity(strict.living()) != identity(session)


def test_no_element_can_claim_to_be_trusted_or_verified(strict: Stage) -> None:
    session = strict.run()

    ident = through_the_inbox(strict, "operator", to=MAX, trusted="true", proven="true")

    refused(strict, ident, session, "use gastown-mail send")


def test_an_agent_needs_its_token_to_ask_for_itself(strict: Stage) -> None:
    session = strict.run()

    refused(strict, through_the_inbox(strict, MAX), session, "did not give the incarnation")

    ident = through_the_inbox(strict, MAX, incarnation=session.incarnation)
    assert strict.again(ident) == "done"
    assert identity(strict.living()) != identity(session)


def test_another_agents_token_proves_nothing(strict: Stage) -> None:
    session, other = strict.run(), strict.run(MAXINE)

    ident = through_the_inbox(strict, MAX, "shutdown", incarnation=other.incarnation)

    assert strict.again(ident) == "superseded"
    assert identity(strict.living()) == identity(session)
    assert identity(strict.living(MAXINE)) == identity(other)


def test_a_witness_asks_for_its_rig_with_its_own_sessions_token(strict: Stage) -> None:
    session, witness = strict.run(), strict.run(WITNESS)
    assert strict.record(WITNESS).incarnation == witness.incarnation

    ident = through_the_inbox(strict, WITNESS, to=MAX, incarnation=witness.incarnation)

    assert strict.again(ident) == "done"
    assert identity(strict.living()) != identity(session)
    assert identity(strict.living(WITNESS)) == identity(witness)


@pytest.mark.parametrize("token", ["none", "victim's", "stranger's", "old", "made up"])
def test_a_witness_without_its_own_token_is_refused(strict: Stage, token: str) -> None:
    session, stranger = strict.run(), strict.run(MAXINE)
    old = strict.run(WITNESS)
    assert strict.carry_out("restart", WITNESS, incarnation=old.incarnation)[0] == "done"
    proofs = {
        "none": {}, "victim's": {"incarnation": session.incarnation}, "old": {"incarnation": old.incarnation},
        "stranger's": {"incarnation": stranger.incarnation}, "made up": {"incarnation": "0" * 32},
    }  # fmt: skip

    ident = through_the_inbox(strict, WITNESS, to=MAX, **proofs[token])

    refused(strict, ident, session, "gastown/witness did not give the incarnation")


def test_a_sender_that_never_had_a_session_has_no_token(strict: Stage) -> None:
    session = strict.run()

    for proof in ({}, {"incarnation": session.incarnation}):
        ident = through_the_inbox(strict, MAYOR, to=MAX, **proof)

        refused(strict, ident, session, "mayor/ did not give the incarnation")


@pytest.mark.parametrize("town", ["strict", "lenient"])
def test_a_verified_sender_may_be_renewed_before_its_request_is_carried_out(
    request: pytest.FixtureRequest, town: str
) -> None:
    stage: Stage = request.getfixturevalue(town)
    session, mayor = stage.run(), stage.run(MAYOR)
    ident = through_the_inbox(stage, MAYOR, to=MAX, incarnation=mayor.incarnation)
    assert stage.carry_out("cycle", MAYOR, incarnation=mayor.incarnation)[0] == "done"
    assert stage.living(MAYOR).incarnation != mayor.incarnation

    assert stage.again(ident) == "done", stage.detail(ident)

    assert identity(stage.living()) != identity(session)


def test_a_revived_request_must_be_verified_again(strict: Stage) -> None:
    session = strict.run()
    ident = through_the_inbox(strict, "operator", to=MAX)
    refused(strict, ident, session, "operator")

    DeadLetters(strict.town.redis, strict.town.keys).revive(ident)
    accept_inbox(strict.town)

    assert carry_out.carry_out_request(strict.town, ident) == "refused"
    assert identity(strict.living()) == identity(session)


@pytest.mark.parametrize(("field", "value"), [("desired", "bogus"), ("starts", "inf"), ("restarts", "many")])
def test_a_damaged_record_of_a_sender_does_not_block_the_inbox(
    lenient: Stage, field: str, value: str
) -> None:
    witness = lenient.run(WITNESS)
    lenient.town.redis.hset(lenient.town.keys.agent(WITNESS), field, value)

    ident = through_the_inbox(lenient, WITNESS, to=MAX, incarnation=witness.incarnation)

    progress = lenient.town.requests.progress(ident)
    assert progress is not None
    assert progress.sender_verified
    assert lenient.town.redis.llen(lenient.town.keys.taken) == 0
