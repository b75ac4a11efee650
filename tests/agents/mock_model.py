"""A model server that answers by a script: `python -m tests.agents.mock_model --port N [--log F]`.

It speaks the interfaces of the programs under test on one port of 127.0.0.1; mock_script.py has the keywords.
"""

import argparse
from pathlib import Path

from tests.agents import mock_chat, mock_generate, mock_messages, mock_responses
from tests.agents.mock_http import Answer, serve
from tests.agents.mock_script import MessageLog

ANSWERS: list[Answer] = [
    mock_messages.answer,
    mock_responses.answer,
    mock_chat.answer,
    mock_generate.answer,
]


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, help="gets one JSON line for each user message")
    parser.add_argument("--requests", type=Path, help="gets one JSON line for each request, whole")
    given = parser.parse_args()
    serve(given.port, ANSWERS, MessageLog(given.log), given.requests)


if __name__ == "__main__":
    main()
