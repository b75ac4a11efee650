"""What does not hold for a program, by program and check; each test asserts what happens instead."""

NONE: dict[tuple[str, str], str] = {
    ("codex", "status-line"): "has no status line that a command draws",
    ("gemini", "status-line"): "has no status line that a command draws",
    ("qwen", "status-line"): "has no status line that a command draws",
    ("opencode", "status-line"): "has no status line that a command draws",
    ("aider", "status-line"): "has no status line that a command draws",
    ("opencode", "trust"): "asks for no trust",
    ("aider", "picker"): "has no pickers",
    ("aider", "login"): "has no login screen: without a key it goes on",
}
"""Checks of what a program has not."""

_ASKS = "runs a command only after a person has said yes"

_WAITS = "tries again by itself until a short limit has ended, and is busy meanwhile"

KNOWN: dict[tuple[str, str], str] = {
    ("codex", "stopped"): "takes no notice of Ctrl-Z; another way of stopping it is seen",
    ("gemini", "stopped"): "takes no notice of Ctrl-Z; another way of stopping it is seen",
    ("qwen", "stopped"): "takes no notice of Ctrl-Z; another way of stopping it is seen",
    ("aider", "stopped"): "takes no notice of Ctrl-Z; another way of stopping it is seen",
    ("gemini", "limit"): f"{_WAITS}; at a daily limit it opens a box, which asks until a person has chosen",
    ("qwen", "limit"): _WAITS,
    ("opencode", "limit"): _WAITS,
    ("aider", "limit"): _WAITS,
    ("aider", "tool"): _ASKS,
    ("aider", "cycle"): _ASKS,
    ("aider", "restart"): _ASKS,
    ("aider", "shutdown"): _ASKS,
    ("aider", "tree"): _ASKS,
    ("opencode", "stopped"): "is left with an empty screen by Ctrl-Z: its state is then `starting`",
    ("aider", "first-prompt"): "takes no first prompt on its command line; give the task by a poke",
}
"""What is different, and a person should know."""
