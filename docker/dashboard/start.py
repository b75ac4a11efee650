#!/opt/venv/bin/python
"""Starts rq's dashboard on the town's Redis, as a read-only user. Jobs are read as JSON."""

import os
from pathlib import Path
from urllib.parse import quote

from rq.serializers import DefaultSerializer, JSONSerializer

PASSWORD = Path("/run/gastown/dashboard/password")


def main() -> None:
    """Serve on port 9181 until SIGTERM."""
    # Some of the dashboard's pages take no serializer and would unpickle what they find.
    for name in ("dumps", "loads"):
        setattr(DefaultSerializer, name, staticmethod(getattr(JSONSerializer, name)))
    if not os.environ.get("RQ_DASHBOARD_REDIS_URL"):
        password = quote(PASSWORD.read_text().strip(), safe="")
        os.environ["RQ_DASHBOARD_REDIS_URL"] = f"redis://dashboard:{password}@redis:6379/0"

    from rq_dashboard.cli import run

    # All interfaces of the container; outside, compose publishes the port on the loopback interface alone.
    run(["--bind", "0.0.0.0", "--json", "--disable-delete"], auto_envvar_prefix="RQ_DASHBOARD")  # noqa: S104


if __name__ == "__main__":
    main()
