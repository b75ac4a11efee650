"""What the folders of a town say: its rigs, and the agents that have a place in it (CONTRACTS section 1)."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gastown_mail.contracts.address import NAME_PATTERN, ParsedAddress
from gastown_mail.contracts.errors import SettingsError

MTIME_GRANULARITY = 2.0
"""Seconds after a change in which another one may not show: the disk's clock is coarse."""

RESERVED_FOLDERS = frozenset({"mayor", "deacon", "daemon"})
"""Folders of the town itself: one is a rig only where `rigs.json` says so."""


@dataclass(slots=True)
class DiscoveredTown:
    """Rigs and agents as found on disk; `notes` are sentences on what could not be taken."""

    rigs: set[str] = field(default_factory=set)
    addresses: list[ParsedAddress] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def discover(town_root: Path) -> DiscoveredTown:
    """Read the town's folders; what cannot be read is noted. Raises SettingsError for a broken rigs.json."""
    layout = DiscoveredTown()
    folders = _folders(town_root, layout)
    layout.addresses += [ParsedAddress(role) for role in ("mayor", "deacon") if role in folders]
    named = _rigs_named(town_root / "mayor" / "rigs.json", layout)
    for rig in sorted(folders - RESERVED_FOLDERS if named is None else named):
        _add_rig(town_root / rig, layout, certain=named is not None)
    return layout


def fingerprint(town_root: Path, now: float) -> tuple[object, ...] | None:
    """What changes whenever the answer of `find_layout` or town.toml does; None when it changed just now.

    `now`: seconds since the epoch. A file that changes twice within one step of the disk's clock looks the
    same after both.
    """
    places = [town_root, town_root / "town.toml", town_root / "mayor" / "rigs.json"]
    for folder in sorted(_folders(town_root, DiscoveredTown()) - {"daemon"}):
        places += [town_root / folder, town_root / folder / "crew", town_root / folder / "polecats"]
    found = [_stamp(place) for place in places]
    newest = max((sign.changed for sign in found if sign), default=0.0)
    return None if newest > now - MTIME_GRANULARITY else tuple(zip(places, found, strict=True))


class _FileStamp(NamedTuple):
    inode: int
    size: int
    written: int
    changed: float


def _stamp(place: Path) -> _FileStamp | None:
    try:
        found = place.stat()
    except OSError:
        return None
    return _FileStamp(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime)


def _add_rig(folder: Path, layout: DiscoveredTown, *, certain: bool) -> None:
    if not certain and not _looks_like_rig(folder):
        return
    rig = folder.name
    layout.rigs.add(rig)
    parts = _folders(folder, layout)
    layout.addresses += [ParsedAddress(role, rig) for role in ("witness", "refinery") if role in parts]
    for kind, role in (("crew", "crew"), ("polecats", "polecat")):
        if kind in parts:
            layout.addresses += [
                ParsedAddress(role, rig, name) for name in sorted(_folders(folder / kind, layout))
            ]


def _looks_like_rig(folder: Path) -> bool:
    return os.access(folder / "config.json", os.F_OK) or os.access(folder / ".beads", os.F_OK)


def _rigs_named(file: Path, layout: DiscoveredTown) -> set[str] | None:
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
    layout.warnings += [
        f"{file} names a rig {rig!a}, which is left out: no name out of A-Z a-z 0-9 _ -" for rig in bad
    ]
    return set(rigs).difference(bad)


def _folders(folder: Path, layout: DiscoveredTown) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return set(_named_folders(entries))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        layout.warnings.append(
            f"cannot read {folder}: {error.strerror or error}; what lies in it is left out"
        )
        return set()


def _named_folders(entries: Iterator["os.DirEntry[str]"]) -> Iterator[str]:
    for entry in entries:
        if NAME_PATTERN.match(entry.name) and _is_folder(entry):
            yield entry.name


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where we may not look
        return False
