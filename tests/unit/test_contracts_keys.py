import inspect
import re

from hypothesis import given
from hypothesis import strategies as st

from gastown_mail.contracts import keys as keys_module
from gastown_mail.contracts.keys import Keys

KEYS = Keys("gas-town")


def all_keys() -> set[str]:
    """Return every key that `Keys` can make, with the table's placeholders as variables."""
    words = {"address": "<address>", "ident": "<id>", "host": "<host>"}
    found = []
    for name, member in vars(Keys).items():
        if isinstance(member, property):
            found.append(getattr(KEYS, name))
        elif inspect.isfunction(member) and not name.startswith("_"):
            found.append(
                member(
                    KEYS, *(words.get(each, each) for each in list(inspect.signature(member).parameters)[1:])
                )
            )
    keys = [key for key in found if key.startswith("gastown:")]
    assert len(keys) == len(set(keys)), "two keys are the same"
    return set(keys)


def test_the_public_keys_are_those_of_the_contract() -> None:
    assert KEYS.inbox == "gastown:{gas-town}:inbox"
    assert KEYS.state == "gastown:{gas-town}:state"
    assert KEYS.dead == "gastown:{gas-town}:dead"
    assert KEYS.events == "gastown:{gas-town}:events"
    assert KEYS.agent("gastown/crew/max") == "gastown:{gas-town}:agent:gastown/crew/max"
    assert KEYS.request("x1") == "gastown:{gas-town}:request:x1"


def test_the_table_at_the_head_lists_every_key_once() -> None:
    listed = re.findall(r"^\| gastown:\{town\}:(\S+) ", inspect.getdoc(keys_module) or "", re.MULTILINE)
    assert {f"gastown:{{gas-town}}:{key}" for key in listed} == all_keys()
    assert len(listed) == len(set(listed))


def test_queues_are_named_as_in_the_contract() -> None:
    assert KEYS.lifecycle_queue("host-1") == "gastown-gas-town-host-1-lifecycle"
    assert KEYS.heartbeat_queue("host-1") == "gastown-gas-town-host-1-heartbeat"


@given(st.text(), st.text(max_size=20))
def test_job_ids_are_valid_for_rq(kind: str, ident: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+", KEYS.job_id(kind, ident))


def test_job_ids_read_well() -> None:
    assert KEYS.job_id("request", "sha-1f") == "gas-town_request_sha-1f"
