#!/opt/venv/bin/python
"""Starts rq's dashboard on the town's Redis, as a user that may look and not touch. Jobs are read as JSON."""

import os
from pathlib import Path
from urllib.parse import quote

import rq.serializers

PASSWORD = Path("/run/gastown/dashboard/password")


def main() -> None:
    """Serve on port 9181 until SIGTERM."""
    # Before the dashboard imports rq's jobs: some of its pages would unpickle what they find.
    rq.serializers.DefaultSerializer = rq.serializers.JSONSerializer
    if not os.environ.get("RQ_DASHBOARD_REDIS_URL"):
        password = quote(PASSWORD.read_text().strip(), safe="")
        os.environ["RQ_DASHBOARD_REDIS_URL"] = f"redis://dashboard:{password}@redis:6379/0"

    from rq_dashboard.cli import run

    # All interfaces of the container; outside, compose publishes the port on the loopback interface alone.
    run(["--bind", "0.0.0.0", "--json", "--disable-delete"], auto_envvar_prefix="RQ_DASHBOARD")  # noqa: S104


if __name__ == "__main__":
    main()
