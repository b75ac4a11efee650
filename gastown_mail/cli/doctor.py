"""`doctor`: what was checked in this town, what is wrong, and the remedy for each finding."""

import click

from gastown_mail.cli.options import json_option, load, town_option
from gastown_mail.cli.output import print_json, table
from gastown_mail.status.checks import run_checks

FINDINGS = 6
_MARKS = {"ok": "ok", "finding": "!", "not checked": "?"}


@click.command()
@town_option
@json_option
def doctor(as_json: bool) -> int:
    """Check everything that the daemon needs; exit 6 if there is a finding."""
    settings = load()
    results = run_checks(settings)
    findings = [result for result in results if result.verdict == "finding"]
    if as_json:
        print_json(
            {
                "town": settings.town_name,
                "findings": [{"check": result.check, "finding": result.text} for result in findings],
                "checks": [result.model_dump() for result in results],
            }
        )
    else:
        verdict = {0: "nothing is wrong", 1: "1 finding"}.get(len(findings), f"{len(findings)} findings")
        at_the_top = sorted(results, key=lambda result: result.verdict != "finding")
        rows = [(_MARKS[result.verdict], result.check, result.text) for result in at_the_top]
        click.echo(f"{settings.town_name}: {verdict}\n{table(('', 'CHECK', 'RESULT'), rows)}")
    return FINDINGS if findings else 0
