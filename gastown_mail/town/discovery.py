"""The rigs and agents that a town's folders show (docs/reference/contract.md#roster)."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gastown_mail.contracts.address import NAME_PATTERN, ParsedAddress
from gastown_mail.contracts.errors import SettingsError

_MTIME_GRANULARITY = 2.0
"""Seconds after a change in which another one may go unnoticed: the disk's clock is coarse."""

_RESERVED_FOLDERS = frozenset({"mayor", "deacon", "daemon"})
"""Folders of the town itself: one is a rig only if `rigs.json` names it."""


@dataclass(slots=True)
class DiscoveredTown:
    """Rigs and agents as found on disk; `warnings` are sentences on what could not be read.

    `named` are the rigs that rigs.json names. Links are not followed: they may lead anywhere.
    """

    rigs: set[str] = field(default_factory=set)
    named: frozenset[str] = frozenset()
    addresses: list[ParsedAddress] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def folders(self, folder: Path) -> set[str]:
        """The names of the folders inside `folder` that can be part of an address."""
        try:
            with os.scandir(folder) as entries:
                return {e.name for e in entries if NAME_PATTERN.match(e.name) and _is_folder(e)}
        except (FileNotFoundError, NotADirectoryError):
            return set()
        except OSError as error:
            self.warnings.append(f"cannot read {folder}: {error.strerror or error}; its content is left out")
            return set()

    def add_rig(self, folder: Path) -> None:
        """Add the rig in this folder, with its agents."""
        rig, inside = folder.name, set() if folder.is_symlink() else self.folders(folder)
        self.rigs.add(rig)
        self.addresses += [ParsedAddress(role, rig) for role in ("witness", "refinery") if role in inside]
        for kind, role in (("crew", "crew"), ("polecats", "polecat")):
            if kind in inside:
                names = sorted(self.folders(folder / kind))
                self.addresses += [ParsedAddress(role, rig, name) for name in names]

    def declared_rigs(self, file: Path) -> set[str] | None:
        """The rigs that rigs.json names; None when there is no such file. Raises SettingsError."""
        try:
            text = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SettingsError(f"cannot read {file}: {error.strerror or error}") from error
        try:
            rigs = json.loads(text)["rigs"].keys()
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(
                f'{file} is broken: expected JSON such as {{"rigs": {{"NAME": {{}}}}}}'
            ) from error
        bad = sorted(rig for rig in rigs if not NAME_PATTERN.match(rig))
        self.warnings += [
            f"{file} names a rig {rig!a}, which is left out: not a name from A-Z a-z 0-9 _ -" for rig in bad
        ]
        return set(rigs).difference(bad)


def discover(town_root: Path) -> DiscoveredTown:
    """Read the town's folders; unreadable ones are warnings. Raises SettingsError for a broken rigs.json."""
    town = DiscoveredTown()
    folders = town.folders(town_root)
    town.addresses += [ParsedAddress(role) for role in ("mayor", "deacon") if role in folders]
    declared = town.declared_rigs(town_root / "mayor" / "rigs.json")
    town.named = frozenset(declared or ())
    for rig in sorted(folders - _RESERVED_FOLDERS if declared is None else declared):
        signs = (town_root / rig / "config.json", town_root / rig / ".beads")
        if declared is not None or any(os.access(sign, os.F_OK) for sign in signs):
            town.add_rig(town_root / rig)
    return town


class _FileStamp(NamedTuple):
    inode: int
    size: int
    written: int
    changed: float

    @classmethod
    def of(cls, path: Path) -> "_FileStamp | None":
        try:
            stat = path.stat()
        except OSError:
            return None
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime)


def fingerprint(town_root: Path, now: float) -> tuple[object, ...] | None:
    """What changes whenever town.toml or the answer of `discover` does; None if a change is too recent.

    `now`: seconds since the epoch. A file that changes twice within one tick of the disk's clock looks the
    same after both changes.
    """
    paths = [town_root, town_root / "town.toml", town_root / "mayor" / "rigs.json"]
    for folder in sorted(DiscoveredTown().folders(town_root) - {"daemon"}):
        paths += [town_root / folder, town_root / folder / "crew", town_root / folder / "polecats"]
    stamps = [_FileStamp.of(path) for path in paths]
    newest = max((stamp.changed for stamp in stamps if stamp), default=0.0)
    return None if newest > now - _MTIME_GRANULARITY else tuple(zip(paths, stamps, strict=True))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # gone meanwhile, or on a file system that does not say
        return False
