"""What a running town writes to Redis, disk, tmux and its agents, as literals (see `test_pinned_words.py`).

`pinned_forms.py` explains the forms and the words in capitals.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

from tests.acceptance.pinned_forms import compared, compared_all, paths, same, same_words, table
from tests.acceptance.pinned_town import Seen, recorded
from tests.acceptance.recording import Write, by_field, described, results
from tests.unit.test_pinned_interfaces import REPORT, listed
from tests.unit.test_pinned_words import EVENT_FIELDS, LOG_EVENTS, LOG_KEYS

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows a server whose socket is gone"),
]

KEYS = r"""
    inbox | state | dead | events | open | agents | places | clerk | accepted | heartbeat:h1
    | sweep:h1 | agent:\* | agent:ADDRESS | state:h1 | hosts | host:h1 | host:h2 | identity | revision | epoch
    | request:ID | work:ID | handoff:ADDRESS | waiting:ADDRESS | turn:ADDRESS
"""
"""Every key behind `gastown:{pins}:` but `taken`, which only the server writes."""

RECORDS = r"""
state running: true | false
state pid: NUMBER
state started_at: TIME
state last_heartbeat: TIME
state heartbeat_count: NUMBER
agent desired: running | stopped | paused | ()
agent changed_at: TIME
agent owed: true | false
agent before_pause: running | ()
agent wish: NUMBER
agent session: SESSION
agent incarnation: TOKEN
agent host: h1 | ()
agent machine: MACHINE | ()
agent boot: [0-9a-f-]{36} | ()
agent tmux_server: NUMBER:NUMBER | ()
agent tmux_socket: /.+ | ()
agent assigned: h1 | h2
agent started_at: TIME
agent restarts: 1
agent generation: \d{13}
agent last_activity: TIME
agent last_poke: TIME
agent state: ?ready | ?busy | ?asks | ?limited | ?starting | ?draft | ?ended | none | ?unknown
    | ?elsewhere
agent state_since: TIME
agent state_line: () | ?.+
agent limited_until: ?() | ?TIME
agent screen: () | ?[0-9a-f]{16}
agent misses: 0 | ?NUMBER
agent starts: MILLIS | () | ?MILLIS( MILLIS)+
agent failures: 0 | 1 | ?NUMBER
agent not_before: 0\.000 | MILLIS
agent quarantined_until: 0\.000 | MILLIS
agent trial: false | ?true
agent failed: false | true
agent judged_at: 0\.000 | MILLIS
agent start_fault: () | ?(.|\s)+
agent decision: delivered | left alone: its session is not there, and keep_running is false
    | left alone: the town is paused | not poked: it has no poke | not poked: due at TIME
    | not started: in quarantine until TIME after a crash loop
    | ?its session (is not there|has ended) and (it must keep running|a request ended it)
    | ?left alone: (paused|stopped|its session is not managed; adopt it) | ?not poked: active at TIME
    | ?not poked: (busy|starting|asks: .+|draft: .+|ended: .+|unknown: .+|limited until TIME: .+)
    | ?not started: in back-off until TIME after NUMBER starts? | ?(held|failed): .+
    | ?released: it moves to host h2
request from: ADDRESS | operator | nobody | ()
request to: ADDRESS | nobody | ()
request agent: ADDRESS | ()
request action: cycle | restart | shutdown | ()
request timestamp: TIME | ()
request reason: full | ()
request received_at: TIME
request finished_at: TIME | ()
request status: received | carrying | done | superseded | refused | expired | failed
request detail: started SESSION, pid NUMBER | ended SESSION | waiting: .+ | () | its session has been replaced
    | asked for NUMBER days ago; revive it if still meant | ?.+
work element: \{.+\} | garbage
work trusted: true
work proven: true
work tries: 1
work sender_ahead: ?-?NUMBER\.NUMBER
work begun_at: EPOCH
work victim: TOKEN | ()
work successors: TOKEN | TOKEN TOKEN TOKEN | ?TOKEN TOKEN
work revived_at: EPOCH
inbox: \{.+\} | garbage
agents: ADDRESS | \*
places: NUMBER
handoff: next
hosts: EPOCH h1 | EPOCH h2
host machine: MACHINE
host boot: [0-9a-f-]{36} | ?f{8}
host folder: NUMBER:NUMBER | ?()
host root: /.+ | ?()
host roster: \{.+\} | ?()
host town_toml: [0-9a-f]{64} | ?()
host clock_ahead: -?NUMBER\.NUMBER
identity: MACHINE
revision number: NUMBER
revision rewound_at: EPOCH
epoch run_id: [0-9a-f]{40}
epoch epoch: [0-9a-f]{16}
epoch read: true | ()
clerk: LEASE
accepted: EPOCH
turn: LEASE
heartbeat: LEASE
sweep: LEASE
open: EPOCH ID
dead: EPOCH ID
waiting: NUMBER ID
"""
"""Each field of a hash, each other value; of a sorted set the score and the member."""

EVENT_TEXTS = r"""
agent: ADDRESS | \*
request: ID
action: cycle | restart | shutdown
session: SESSION
pid: NUMBER
number: NUMBER
started: NUMBER
to_start: NUMBER
poked: NUMBER
held: NUMBER
left: NUMBER
requeued: NUMBER
outcome: delivered | held: a bare shell \(sh\) is in front and would run the text | ?(held|failed): .+
state: ?ready | ?busy | ?asks | ?limited | ?starting | ?draft | ?ended | ?none | ?unknown
detail: started SESSION, pid NUMBER | ended SESSION | paused | running | as its settings say
    | in quarantine until TIME after a crash loop | in back-off until TIME after NUMBER starts? | ?.+
"""

RESULTS = r"""
carry_out: done | superseded | refused | expired | failed | waiting | unknown
start: started SESSION, pid NUMBER | runs already | left alone: stopped | left alone: it need not run
    | left alone: in quarantine until TIME after a crash loop | failed: the command 'no-such-program' .+
    | left alone: the session SESSION is not managed; adopt it
    | busy: another operation on this agent is in progress; try again
    | ?left alone: in back-off until TIME after NUMBER starts? | ?left alone: request ID is being carried out
    | ?failed: .+
poke: delivered | held: paused | held: a bare shell \(sh\) is in front and would run the text
    | failed: it has no session; .+ | failed: it has no poke; give a text
release: released to host h2 | ?.+
heartbeat: heartbeat NUMBER | failed: .+ | another heartbeat is running
sweep: NUMBER requeued | another sweep is running
"""
"""What each job returns; commands read it in rq's results."""

JOBS = r"""
    pins_request_ID in gastown-pins-h1-lifecycle: carry_out \["ID"\] request ID for ADDRESS
    | pins_start_[a-z-]+ in gastown-pins-h1-lifecycle: start \["ADDRESS", ".+", ""\] start ADDRESS
    | pins_start_[a-z-]+ in gastown-pins-h1-lifecycle: start \["ADDRESS", ".+", "operator"\] start ADDRESS
    | pins_poke_ID in gastown-pins-h1-lifecycle: poke \["ADDRESS", "hello", "EPOCH"\] poke ADDRESS
    | pins_release_h1_[a-z-]+ in gastown-pins-h1-lifecycle: release \["ADDRESS"\] release ADDRESS
    | pins_start_[a-z-]+ in gastown-pins-h2-lifecycle: start \["ADDRESS", ".+", ""\] start ADDRESS
    | pins_sweep-now_h1 in gastown-pins-h1-heartbeat: sweep \[\] sweep now
    | ?pins_(sweep|heartbeat)_h1 in gastown-pins-h1-heartbeat: (sweep|heartbeat) \[\] (sweep|heartbeat)
    | pins_sweep_h1 in gastown-pins-h1-heartbeat: sweep \[\] sweep
        \{"lock": "gastown:\{pins\}:sweep:h1", "interval": 1\}
    | pins_heartbeat_h1 in gastown-pins-h1-heartbeat: heartbeat \[\] heartbeat
        \{"lock": "gastown:\{pins\}:heartbeat:h1", "interval": 1\}
"""
"""Each job: id, queue, function of `gastown_mail.daemon.jobs`, arguments, description, rq's meta."""

RQ_KEYS = r"""
    rq:queue:gastown-pins-h1-lifecycle | rq:queue:gastown-pins-h2-lifecycle
    | rq:queue:gastown-pins-h1-heartbeat
    | rq:scheduler:gastown-pins:scheduled_jobs | rq:scheduler:gastown-pins:lock
    | rq:worker:pins-lifecycle-[12]-[0-9a-f]{8} | rq:worker:pins-heartbeat-[0-9a-f]{8}
"""

LOG = """
    booked agent request_id | booked detail request_id | carrying action agent request_id
    | settled agent detail outcome request_id took_ms | postponed agent detail request_id
    | requeued agent request_id | scheduled interval job | not_looked detail | child_started child pid
    | ?child_died child code | ?[a-z_]+ detail
"""
"""The events of the log with their keys."""

CHILDREN = {"clerk", "lifecycle-1", "lifecycle-2", "heartbeat", "scheduler"}

SESSION = r"""
GASTOWN_TOWN: /.+
GASTOWN_TOWN_NAME: pins
GASTOWN_REDIS_URL: unix:///.+/daemon/redis/redis\.sock
GASTOWN_AGENT: gastown/crew/max
GASTOWN_INCARNATION: TOKEN
GASTOWN_MAIL: /.+/gastown-mail
GASTOWN_HANDOFF: /.+/daemon/handoff/gt-gastown-crew-max\.md
GT_ROLE: crew
@gastown_agent: gastown/crew/max
@gastown_generation: \d{13}
@gastown_incarnation: TOKEN
@gastown_pane: %NUMBER
@gastown_home: \$NUMBER
@gastown_town: MACHINE
@gastown_started: \d{10}\.\d{6}
@gastown_generation_gt-gastown-crew-dies: \d{13}
@gastown_generation_gt-gastown-crew-found: \d{13}
@gastown_generation_gt-gastown-crew-max: \d{13}
@gastown_generation_gt-gastown-crew-stays: \d{13}
@gastown_generation_gt-gastown-witness: \d{13}
"""
"""The environment of a session, its tmux options, and those of its server."""

FILES = """
    daemon.lock daemon.log handoff
    private private/daemon.lock private/daemon.log private/desired.json private/desired.lock
    private/identity.json private/identity.lock private/revision.json private/state.lock
    redis redis/appendonlydir redis/server.lock
    redis/server.log state.json
""".split()
FILES_WHILE_IT_RUNS = ["daemon.pid", "redis/redis.sock", "redis/server.pid"]

DESIRED = {
    "*": "paused #N @TIME", "gastown/crew/fails": "running #N @TIME",
    "gastown/crew/max": "paused running #N @TIME",
}  # fmt: skip
"""`desired.json` while an agent and the whole town are paused."""

REQUEST = """
    [].id [].status [].agent [].from [].to [].action [].timestamp [].reason [].received_at [].finished_at
    [].detail
"""
EVENTS = "[].events[].id [].events[].epoch [].events[].event [].events[].agent [].events[].request"
DOCUMENTS = {
    "requests": f"{REQUEST} {EVENTS} [].events[].action [].events[].detail",
    "dead": REQUEST,
    "dead revive": "[].id [].done [].detail",
    "dead drop": "[].id [].done [].detail",
    "inbox": "waiting oldest[].id oldest[].agent oldest[].from oldest[].to oldest[].action oldest[].timestamp"
    " oldest[].epoch oldest[].reason oldest[].refusal oldest[].raw",
    "events": "id epoch event agent request detail",
    "doctor": "town findings[].check findings[].finding checks[].check checks[].verdict checks[].text",
    # no agent lives on another host at that moment
    "status": re.sub(r"unknown\S+", "unknown", " ".join(line.split()[0] for line in listed(REPORT))).replace(
        "hosts[].agents[]", "hosts[].agents"
    ),
}
CHECKS = {
    "folder", "agents", "programs", "tmux", "redis", "clock", "hosts", "tmux socket", "tmux server",
    "daemon", "stopping",
}  # fmt: skip


def test_what_a_running_town_writes() -> None:
    found = list(differences(recorded()))

    assert not found, "\n".join(found)


def differences(seen: Seen) -> Iterator[str]:
    """Yield a line for each word that is not pinned, and for each pinned one that does not occur."""
    ours = [write for write in seen.writes if write.key.startswith("gastown:{pins}:")]
    rq = {write.key for write in seen.writes if re.match("rq:(scheduler|(queue|worker):[^:]+$)", write.key)}
    yield from compared("keys", {write.key.removeprefix("gastown:{pins}:") for write in ours}, KEYS)
    yield from compared_all(by_field(ours), table(RECORDS))
    yield from events(ours)
    yield from compared_all(results(seen.writes), table(RESULTS))
    yield from compared("jobs", described(seen.writes), JOBS)
    yield from compared("rq", rq, RQ_KEYS)
    found = seen.environment | seen.tmux
    yield from compared_all({name: [text] for name, text in found.items()}, table(SESSION))
    yield from log(seen)
    yield from files_and_documents(seen)


def events(writes: Sequence[Write]) -> Iterator[str]:
    """Compare the events, their fields, and the texts of these."""
    told = [(*write.field.split("."), write.value) for write in writes if write.key.endswith(":events")]
    fields, texts = defaultdict(set), defaultdict(set)
    for event, name, text in told:
        fields[event].add(name)
        texts[name].add(text)
    del texts["event"]
    yield from same_words("events", set(fields), set(EVENT_FIELDS))
    for event, names in EVENT_FIELDS.items():
        # The catalogue allows a detail for `received`, which is never written; that of a poke says that a
        # usage limit has ended.
        pinned = set(names.split()) - ({"detail"} if event in ("received", "poke") else set())
        yield from same_words(event, fields[event], {"event", *pinned})
    yield from compared_all(texts, table(EVENT_TEXTS))


def log(seen: Seen) -> Iterator[str]:
    """Compare the log's own events; one that is a sentence is about an accident."""
    ours = [line for line in seen.log if line["logger"].startswith("gastown_mail")]
    ours = [line for line in ours if re.fullmatch("[a-z_]+", line["event"])]
    always = {"time", "level", "logger", "event"}
    lines = {f"{line['event']} {' '.join(sorted(line.keys() - always))}" for line in ours}
    yield from compared("log", lines, LOG)
    yield from same_words("log", {line["child"] for line in ours if "child" in line}, CHILDREN)
    yield from same_words("log", {line["event"] for line in ours} - set(LOG_EVENTS), set())
    yield from same_words("log", {key for line in ours for key in line} - set(LOG_KEYS), set())


def files_and_documents(seen: Seen) -> Iterator[str]:
    yield from same_words("files", set(seen.files["stopped"]), set(FILES))
    yield from same_words("files", set(seen.files["running"]), {*FILES, *FILES_WHILE_IT_RUNS})
    wishes = {agent: re.sub(r"#\d+ @\S+Z$", "#N @TIME", text) for agent, text in seen.desired.items()}
    yield from same("desired.json", wishes, DESIRED)
    yield from same("handoff", seen.handoff, "next")
    yield from same_words("documents", set(seen.documents), set(DOCUMENTS))
    for name, document in seen.documents.items():
        yield from same_words(name, set(paths(document)), set(DOCUMENTS[name].split()))
    yield from same_words("checks", {one["check"] for one in seen.documents["doctor"]["checks"]}, CHECKS)
    verdicts = {one["verdict"] for one in seen.documents["doctor"]["checks"]}
    yield from same_words("verdicts", verdicts | {"not checked"}, {"ok", "finding", "not checked"})
    yield from same("exit codes", (seen.exit_codes["status"], seen.exit_codes["doctor"]), ([4, 3], [6]))
    yield from same("a request in the inbox", "still accepted after 0.1 s" in seen.errors, True)
