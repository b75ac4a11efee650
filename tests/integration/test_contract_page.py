"""What `docs/reference/contract.md` says about Redis, compared with real keys."""

from gastown_mail.daemon import jobs
from gastown_mail.lifecycle.heartbeat import run_heartbeat
from gastown_mail.plumbing.connections import read_hash
from tests.docs.contract import rows, words
from tests.support.agents import MAX
from tests.support.stage import Stage
from tests.support.wait import eventually


def test_the_public_hashes_have_at_least_these_fields(stage: Stage) -> None:
    stage.run()
    request = stage.ask("cycle")
    assert stage.again(request) == "done"
    stage.wrote("prompt")
    eventually(lambda: jobs.poke(MAX, "is anything to do?") == "delivered")
    run_heartbeat(stage.town)

    for key, fields in rows("Redis keys and queues"):
        pattern = words(key)[0].replace("{town}", f"{{{stage.town.keys.town}}}")
        found = read_hash(stage.town.redis, pattern.replace("<address>", MAX).replace("<id>", request))
        assert set(words(fields)) <= set(found), key
