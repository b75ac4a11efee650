"""Daemons that sessions share: programs that outlive the session that happened to start them."""

from collections.abc import Iterable

SHARED_DAEMONS = (
    # terminal multiplexers
    "tmux", "tmate", "screen", "zellij", "abduco", "dtach", "shpool daemon", "wezterm-mux-server",
    # keys and passwords
    "ssh-agent", "ssh [mux]", "gpg-agent", "dirmngr", "keyboxd", "scdaemon", "tpm2daemon",
    "gnome-keyring-daemon", "kwalletd", "rbw-agent", "git credential-cache--daemon",
    "git-credential-cache--daemon",
    # agents' programs and editors
    "codex app-server --listen", "codex app-server daemon", "emacs --daemon", "emacs --bg-daemon",
    # watching and copying files
    "watchman", "git fsmonitor--daemon", "mutagen daemon",
    # building
    "java org.gradle.launcher.daemon.bootstrap.GradleDaemon",
    "java org.jetbrains.kotlin.daemon.KotlinCompileDaemon", "java org.mvndaemon.mvnd.common.MavenDaemon",
    "java com.facebook.buck.cli.MainWithNailgun", "bazel", "buck2d", "pantsd", "sccache",
    "node daemon/server/start.js", "turbo daemon", "node eslint_d/lib/daemon.js", "node core_d/lib/daemon.js",
    "biome __run_server", "adb fork-server",
    # containers and virtual machines
    "dockerd", "rootlesskit", "containerd", "containerd-shim", "containerd-shim-runc-v2", "conmon",
    "catatonit -P", "slirp4netns", "pasta", "rootlessport", "aardvark-dns", "fuse-overlayfs",
    "limactl hostagent", "limactl usernet",
    # the desktop
    "systemd --user", "dbus-daemon", "dbus-broker-launch", "pulseaudio", "pipewire", "pipewire-pulse",
    "wireplumber",
)  # fmt: skip
"""The built-in list: each the name of a program, then words that must be among its arguments."""


def spared_programs(changes: Iterable[str]) -> tuple[str, ...]:
    """The built-in list with these changes, in their order.

    `!NAME` takes the entries of the program NAME off the list, `!*` all of them; anything else is added.
    Raises ValueError if there is nothing to take off.
    """
    programs = list(SHARED_DAEMONS)
    for change in changes:
        if not change.startswith("!"):
            programs.append(change)
            continue
        name = change.removeprefix("!").strip()
        kept = [p for p in programs if name not in ("*", p, p.partition(" ")[0])]
        if len(kept) == len(programs):
            raise ValueError(f"{change} takes nothing off the list")
        programs = kept
    return tuple(programs)
