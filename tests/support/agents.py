"""Programs that stand in for AI agents, and the settings of towns that run them."""

MAX, MAXINE, WITNESS, DEACON = "gastown/crew/max", "gastown/crew/maxine", "gastown/witness", "deacon/"

ECHO_AGENT = """sh -c 'echo "$1"; while read line; do echo "got $line"; done' sh {prompt}"""
"""Shows its first prompt, then answers every line; it ends on SIGTERM at once."""

RECORDER = (
    """sh -c 'echo "$GASTOWN_INCARNATION" >> starts; cat "${GASTOWN_HANDOFF:-/dev/null}" > handoff;"""
    """ env -0 > env.part; mv env.part env; printf %s "$1" > prompt.part; mv prompt.part prompt;"""
    """ while read line; do echo "$line" >> lines; done' sh {prompt}"""
)
"""Writes what it was given and what was typed into its work dir; it ends on SIGTERM at once."""

DEAF_RECORDER = RECORDER.replace("sh -c '", "sh -c 'trap : TERM; ", 1).replace(
    'while read line; do echo "$line" >> lines; done', "while :; do sleep 0.1; done"
)
"""A recorder that only SIGKILL ends."""

TWO_AGENTS = f"""
[roles.witness]
command = '''{ECHO_AGENT}'''
stop_grace = 1
[agents."gastown/witness"]
work_dir = "."
[agents."gastown/crew/max"]
command = '''{ECHO_AGENT}'''
work_dir = "."
stop_grace = 1
"""

RECORDED = f"""
[daemon]
restart_backoff = 0
[roles.crew]
command = '''{RECORDER}'''
work_dir = "work/{{name}}"
stop_grace = 2
[roles.witness]
command = '''{RECORDER}'''
work_dir = "work/witness"
poke = "HEARTBEAT: check your workers"
[roles.deacon]
command = '''{RECORDER}'''
work_dir = "work/deacon"
poke = ""
[agents."gastown/crew/max"]
[agents."gastown/crew/maxine"]
[agents."gastown/witness"]
"""

WITH_DEACON = RECORDED + '[agents."deacon/"]\n'

TOWN = RECORDED.replace("[daemon]\n", "[daemon]\nsweep_interval = 1\nheartbeat_interval = 2\n")
"""Two crew members and a witness, all recorders; frequent heartbeats."""

UNPOKED = """
[daemon]
heartbeat_interval = 2
sweep_interval = 1
fresh_after = 3600
restart_backoff = 0
crash_loop_count = 1000
"""
"""Frequent heartbeats that poke no agent and quarantine none."""

CREW = """
[roles.crew]
command = '''{agent}'''
work_dir = "work/{{name}}"
stop_grace = {grace}
[agents."gastown/crew/max"]
[agents."gastown/crew/maxine"]
"""


def a_crew(agent: str = RECORDER, grace: float = 2, daemon: str = UNPOKED) -> str:
    """Return a town.toml with the agents max and maxine."""
    return daemon + CREW.format(agent=agent, grace=grace)
