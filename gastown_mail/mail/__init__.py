"""A request's way into the daemon: sending it, and the inbox."""
