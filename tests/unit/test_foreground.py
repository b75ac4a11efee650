"""A shell is bare when it takes its commands from the terminal."""

import shlex

import pytest

from gastown_mail.sessions.foreground import bare_shell


@pytest.mark.parametrize(
    "command",
    [
        "bash", "-bash", "/bin/bash --login", "sh", "zsh -i", "-zsh", "fish", "dash", "/usr/bin/ksh",
        "bash -l -i",
        "bash --norc -i", "bash -o vi", "bash +O extglob", "bash --rcfile /tmp/rc", "sh -s", "sh -s argument",
        "bash --", "bash -", "busybox sh", "sh -e", "fish -C 'set x'", "bash -il",
    ],
)  # fmt: skip
def test_a_bare_shell_is_recognized(command: str) -> None:
    assert bare_shell(shlex.split(command))


@pytest.mark.parametrize(
    "command",
    [
        "sh script.sh", "bash ./agent.sh --loop", "sh -c 'claude'", "bash -lc 'claude'",
        "bash -euo pipefail -c x",
        "bash -o pipefail script", "bash -- script", "bash --norc script", "claude", "node cli.js",
        "busybox top", "sh -ec x", "fish --command=ls", "bash -eo pipefail script", "vim", "shell",
    ],
)  # fmt: skip
def test_a_shell_that_runs_a_program_is_not_bare(command: str) -> None:
    assert bare_shell(shlex.split(command)) == ""


def test_without_arguments_a_process_is_unknown() -> None:
    assert bare_shell([]) is None
