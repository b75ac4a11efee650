"""Records screens of Gemini CLI, Qwen Code, opencode, aider and shell programs.

`python -m tests.agents.record_b PROGRAM [SCENE...]` writes them to `screens/PROGRAM/`. The programs run in a
network namespace that has only `lo`, each scene with a home of its own.
"""

import argparse
import sys
from types import ModuleType

from tests.agents import scenes_aider, scenes_gemini, scenes_opencode, scenes_qwen, scenes_shell
from tests.agents.namespace import end_others, isolate
from tests.agents.programs_b import PROGRAMS_B
from tests.agents.stage import Scene, Stage, mock_server

_MODULES = {
    "gemini": scenes_gemini,
    "qwen": scenes_qwen,
    "opencode": scenes_opencode,
    "aider": scenes_aider,
    "shell": scenes_shell,
}


def scenes(module: ModuleType) -> dict[str, Scene]:
    """Return the public functions of a module of scenes by their names."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
    }


def play(name: str, scene: Scene) -> str:
    """Play one scene and return what went wrong, or nothing."""
    program = PROGRAMS_B.get(name)
    stage = Stage(name, program, program.version if program else "any")
    try:
        scene(stage)
    except TimeoutError as error:
        return str(error)
    finally:
        stage.end()
        end_others(spare=("tests.agents.mock_model",))  # Gemini CLI outlives its terminal
        stage.close()
    return ""


def main() -> None:
    """Record the scenes of one program; the exit code is 1 if one of them did not play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=_MODULES)
    parser.add_argument("scene", nargs="*")
    given = parser.parse_args()
    isolate()
    every = scenes(_MODULES[given.program])
    failed = False
    with mock_server():
        for name in given.scene or every:
            wrong = play(given.program, every[name])
            failed = failed or bool(wrong)
            sys.stderr.write(f"{name}: {wrong or 'recorded'}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
