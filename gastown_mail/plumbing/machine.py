"""What tells this machine, and this boot of it, from all others."""

import hashlib
from pathlib import Path

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def machine_digest() -> str:
    """A text that is the same as long as this machine's operating system is; "" where it has no id."""
    for file in _MACHINE_IDS:
        try:
            if ident := file.read_bytes().strip():
                return hashlib.sha256(b"gastown-mail " + ident).hexdigest()[:32]
        except OSError:
            continue
    return ""


def boot_id() -> str:
    """The kernel's id of this boot; "" where it gives none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
