import sys, time, os, pytest, pathlib
from tests.agents.agent_town import *
from tests.agents.programs import PROGRAMS as PA
from tests.agents.programs_b import PROGRAMS_B
PROGRAMS=PA|PROGRAMS_B
from gastown_mail.contracts.lifecycle import AgentState as A
NAME=os.environ["NAME"]
def test_it(make_town, tmp_path):
    with agent_town(PROGRAMS[NAME], make_town, tmp_path, os.environ.get("ARGS","{prompt}")) as t:
        t.run(IT)
        def p(text):
            b=time.time(); o=t.poke(text); print(repr(text[:60]), len(text), "->", o, f"{time.time()-b:.2f}s", flush=True); return o
        t.wait_for(A.READY)
        time.sleep(1); t.wait_for(A.READY)
        print(t.received())
        exec(open(os.environ["STEPS"]).read(), dict(globals(), **locals()))
