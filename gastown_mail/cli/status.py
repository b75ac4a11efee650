"""`status`: the town at a glance, once or again and again."""

import os
import sys

import click

from gastown_mail.cli.glance import COLOURS, format_report
from gastown_mail.cli.look import collect_report
from gastown_mail.cli.options import json_option, town_option
from gastown_mail.cli.report import Report

EXIT_CODES = {"running": 0, "stopped": 3, "degraded": 4}


@click.command()
@town_option
@json_option
@click.option("-w", "--watch", is_flag=True, help="Show it again and again, until Ctrl-C (exit code 130).")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, metavar="SECONDS",
    help="With --watch: the pause between two looks.",
)  # fmt: skip
def status(as_json: bool, watch: bool, interval: float) -> int:
    """Say whether the town is served: exit 0 running, 3 stopped, 4 degraded."""
    if watch and as_json:
        raise click.UsageError("say --watch or --json, not both")
    if watch:
        from gastown_mail.cli.watch import watch_status

        watch_status(collect_report, interval)
    report = collect_report()
    click.echo(report.model_dump_json(indent=2) if as_json else _coloured(report))
    return EXIT_CODES[report.verdict]


def _coloured(report: Report) -> str:
    first, *rest = format_report(report)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        first = click.style(first, fg=COLOURS[report.verdict], bold=True)
    return "\n".join((first, *rest))
