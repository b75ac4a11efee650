"""Redis connections, the embedded server, files and locks, the log."""
