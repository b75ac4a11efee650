"""The player of documents finds every block, and detects when a command prints something else."""

from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks, prose
from tests.docs.commands import refusal
from tests.docs.play import Play
from tests.docs.shell import Shell, shows

DOCUMENT = """\
Say `gastown-mail status`:

<!-- test: again -->
```sh
echo a
```

1. In a list:

   ```toml
   [daemon]
   ```

<!-- test: before
echo hidden
-->
"""


def test_blocks_come_in_their_order_with_mark_and_line() -> None:
    assert blocks(DOCUMENT) == [
        Block("sh", "echo a\n", 5, "again"),
        Block("toml", "[daemon]\n", 11),
        Block("sh", "echo hidden\n", 15, "before"),
    ]


def test_prose_is_everything_outside_blocks() -> None:
    assert prose(DOCUMENT).split() == "Say `gastown-mail status`: 1. In a list:".split()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("started, pid 17\n", "started,  pid 4711"),
        ("one\ntwo\nthree\n", "one\nthree"),
        ("ada   running  alive\n", "ada …alive"),
        ("01a213dd7a53-ac1883b3f94621ddf767 done\n", "01a213dd7030-d35c7139898b40a49146 done"),
    ],
)
def test_values_that_differ_at_each_run_match(output: str, expected: str) -> None:
    assert shows(output, expected)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("running\n", "stopped"),
        ("two\none\n", "one\ntwo"),
        ("one\n", "one\none"),
        ("alive!\n", "alive"),
        ("", "x"),
    ],
)
def test_missing_output_is_detected(output: str, expected: str) -> None:
    assert not shows(output, expected)


def test_a_block_continues_where_the_last_one_ended(tmp_path: Path) -> None:
    play = Play(Shell(tmp_path / "w", tmp_path / "home"))

    play.block(Block("sh", "mkdir inner && cd inner && export WORD=said\n", 1))
    play.block(Block("sh", 'echo "$WORD in ${PWD##*/}"\n', 2))

    play.block(Block("text", "said in inner\n", 3))


def test_a_failing_command_is_detected_anywhere_in_a_block(tmp_path: Path) -> None:
    play = Play(Shell(tmp_path / "w", tmp_path / "home"))

    with pytest.raises(AssertionError, match="exit code 1"):
        play.block(Block("sh", "false\ntrue\n", 1))


def test_a_command_that_the_parser_rejects_is_detected() -> None:
    assert refusal("gastown-mail status --json") is None
    assert refusal("gastown-mail --town x dead revive ID") is None
    assert refusal("gastown-mail send") is None
    assert "sned" in str(refusal("gastown-mail sned cycle"))
    assert "--jsn" in str(refusal("gastown-mail status --jsn"))
