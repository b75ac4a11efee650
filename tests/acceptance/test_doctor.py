"""`doctor` names what is wrong with a town, each finding with its remedy."""

import json
import os
import shutil
from pathlib import Path

import pytest

from gastown_mail.contracts.settings import load_settings
from tests.acceptance.daemons import Place
from tests.integration.stage import MAX
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)


def _findings(place: Place, **environ: str) -> tuple[int, dict[str, str]]:
    done = place.command("doctor", "--json", environ=environ)
    return done.returncode, {one["check"]: one["finding"] for one in json.loads(done.stdout)["findings"]}


def test_a_town_that_is_well_has_no_finding(place: Place) -> None:
    place.up()
    place.run(MAX)
    eventually(lambda: place.state().heartbeat_count > 0)

    assert _findings(place) == (0, {})


def test_what_is_down_or_missing_is_named_with_its_remedy(place: Place) -> None:
    (place.root / "town.toml").write_text('[roles.deacon]\ncommand = "no-such-program"\n')
    (place.root / "deacon").mkdir()

    code, findings = _findings(place)

    assert code == 6
    assert "'no-such-program' is not on the PATH; install it" in findings["agents"]
    assert "is not reachable: see that it runs" in findings["redis"]


def test_another_tmux_than_the_servers_is_named(place: Place, tmp_path: Path) -> None:
    place.up()
    place.run(MAX)
    other = tmp_path / "tmux"
    other.write_text(
        f'#!/bin/sh\n[ "$1" = -V ] && echo "tmux 3.9" && exit\nexec {shutil.which("tmux")} "$@"\n'
    )
    other.chmod(0o755)

    code, findings = _findings(place, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert code == 6
    assert "the client is tmux 3.9; use the same version for both" in findings["tmux server"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a socket to another user")
def test_a_socket_of_another_user_is_named(place: Place) -> None:
    socket = place.root / "tmux.sock"
    (place.root / "town.toml").write_text(f'[daemon]\ntmux_socket = "{socket}"\n')
    assert load_settings(place.root, environ={}).tmux_socket == str(socket)
    place.up()
    socket.touch()
    os.chown(socket, 12345, 12345)

    code, findings = _findings(place)

    assert code == 6
    assert f"{socket} belongs to user 12345, and this is user 0" in findings["tmux server"]
