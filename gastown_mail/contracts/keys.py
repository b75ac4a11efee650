"""Every Redis key, and the names of rq's queues and jobs. Standard library only.

`{town}` is the town's name with the braces written, so that all keys of a town share one hash slot.

| key                               | type   | public | holds                                               |
|-----------------------------------|--------|--------|-----------------------------------------------------|
| gastown:{town}:inbox              | list   | yes    | requests as JSON, pushed on the right               |
| gastown:{town}:taken              | list   |        | elements taken from the inbox, not yet recorded     |
| gastown:{town}:state              | hash   | yes    | the town's state: running if any host is             |
| gastown:{town}:state:<host>       | hash   | yes    | the same of one host, as in its own state.json      |
| gastown:{town}:hosts              | zset   |        | hosts by the time of their last report              |
| gastown:{town}:host:<host>        | hash   |        | the machine and the folder of a host                |
| gastown:{town}:identity           | string |        | the id of the town that has this name               |
| gastown:{town}:revision           | hash   |        | counter: how far the town's records have come       |
| gastown:{town}:dead               | zset   | yes    | ids of dead letters by time                         |
| gastown:{town}:events             | stream | yes    | one entry for each fact, capped                     |
| gastown:{town}:open               | zset   |        | ids of requests not yet settled, by time of receipt |
| gastown:{town}:agents             | set    |        | canonical addresses that have an agent hash         |
| gastown:{town}:agent:<address>    | hash   | yes    | an agent's desired state and what was observed      |
| gastown:{town}:request:<id>       | hash   | yes    | a request and how it ended                          |
| gastown:{town}:epoch              | hash   | yes    | which Redis this is, for receipts of lost requests  |
| gastown:{town}:work:<id>          | hash   |        | its raw element, and the daemon's progress with it  |
| gastown:{town}:places             | string |        | counter: a request's place in the town's order      |
| gastown:{town}:waiting:<address>  | zset   |        | ids of requests for an agent, by their place         |
| gastown:{town}:handoff:<address>  | string |        | the handoff of the last cycle, for the successor    |
| gastown:{town}:turn:<address>     | string |        | lock: one operation on an agent at a time           |
| gastown:{town}:heartbeat:<host>   | string |        | lock: one heartbeat of a host at a time             |
| gastown:{town}:sweep:<host>       | string |        | lock: one sweep of a host at a time                 |
| gastown:{town}:clerk              | string |        | lock: one reader of the inbox                       |
| gastown:{town}:accepted           | string |        | when the clerk last accepted elements               |
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the town with this name (`Settings.town_name`), and how much they keep.

    `events_kept`: about how many entries of `events`. `requests_kept`: for how many seconds the record of a
    settled request.
    """

    town: str
    events_kept: int = 10_000
    requests_kept: float = 7 * 24 * 3600.0

    @property
    def inbox(self) -> str:
        return self._key("inbox")

    @property
    def taken(self) -> str:
        return self._key("taken")

    @property
    def state(self) -> str:
        return self._key("state")

    def state_of(self, host: str) -> str:
        return self._key("state", host)

    @property
    def hosts(self) -> str:
        return self._key("hosts")

    def host(self, host: str) -> str:
        return self._key("host", host)

    @property
    def identity(self) -> str:
        return self._key("identity")

    @property
    def revision(self) -> str:
        return self._key("revision")

    @property
    def epoch(self) -> str:
        return self._key("epoch")

    @property
    def dead(self) -> str:
        return self._key("dead")

    @property
    def events(self) -> str:
        return self._key("events")

    @property
    def unsettled(self) -> str:
        return self._key("open")

    @property
    def agents(self) -> str:
        return self._key("agents")

    @property
    def sequence(self) -> str:
        return self._key("places")

    def heartbeat(self, host: str) -> str:
        return self._key("heartbeat", host)

    def sweep(self, host: str) -> str:
        return self._key("sweep", host)

    @property
    def clerk(self) -> str:
        return self._key("clerk")

    @property
    def accepted(self) -> str:
        return self._key("accepted")

    def agent(self, address: str) -> str:
        return self._key("agent", address)

    def request(self, ident: str) -> str:
        return self._key("request", ident)

    def progress(self, ident: str) -> str:
        return self._key("work", ident)

    def handoff(self, address: str) -> str:
        return self._key("handoff", address)

    def pending(self, address: str) -> str:
        return self._key("waiting", address)

    def lease(self, address: str) -> str:
        return self._key("turn", address)

    def lifecycle_queue(self, host: str) -> str:
        """rq's queue of lifecycle jobs for the workers of one host."""
        return f"gastown-{self.town}-{host}-lifecycle"

    def heartbeat_queue(self, host: str) -> str:
        """rq's queue of heartbeats, separate so that neither kind of job waits for the other."""
        return f"gastown-{self.town}-{host}-heartbeat"

    def job_id(self, kind: str, ident: str) -> str:
        """An id that rq accepts: `[A-Za-z0-9_-]` only."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", f"{self.town}_{kind}_{ident}")

    def _key(self, *parts: str) -> str:
        return ":".join((f"gastown:{{{self.town}}}", *parts))
