"""The command `gastown-mail`, one file per group of commands."""
