"""Results for people and for scripts."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from picker.conformance.case import Result, Verdict

COLOURS = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.NOT_ASKED: "yellow"}


def table(results: Sequence[Result]) -> Table:
    """One row a case: verdict, name, the rule, and what was seen where it was not kept or not asked."""
    found = Table(
        title="Conformance to the endpoint picker protocol", box=None, title_justify="left", show_header=False
    )
    found.add_column(no_wrap=True)
    found.add_column()
    for result in results:
        text = f"[bold]{result.name}[/]\n{result.rule} [dim]({result.source})[/]"
        if result.seen:
            text += f"\n[{COLOURS[result.verdict]}]{_plain(result.seen)}[/]"
        verdict = f"[{COLOURS[result.verdict]}]{result.verdict}[/]"
        found.add_row(verdict, text)
    return found


def summary(results: Sequence[Result]) -> str:
    """The count of each verdict, in one line."""
    counts = Counter(result.verdict for result in results)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)


def as_json(results: Sequence[Result]) -> str:
    """`{"passed": n, "failed": n, "not_asked": n, "cases": [...]}`."""
    counts = Counter(result.verdict for result in results)
    totals = {verdict.replace(" ", "_"): counts[verdict] for verdict in Verdict}
    return json.dumps({**totals, "cases": [asdict(result) for result in results]}, indent=2) + "\n"


def _plain(text: str) -> str:
    """What the other side said is no markup, and no control characters."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text).replace("[", r"\[")
