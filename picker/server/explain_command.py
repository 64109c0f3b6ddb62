"""`picker explain`: one pick in tables: what was known of every endpoint, and what the policy made of it."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

ADMIN = "http://127.0.0.1:9091"
TIMEOUT_S = 10.0
MAX_BYTES = 64 << 20
KNOWN = {
    "batch": "batch",
    "queued_tokens": "queued",
    "hit_tokens": "hit",
    "new_tokens": "new",
    "decode_tokens": "context",
    "running": "run",
    "waiting": "wait",
    "kv_usage": "KV",
    "in_flight": "own",
    "age_s": "age s",
}
"""Columns of the first table, by their names in the decision log."""
PREDICTIONS = {"predicted_ttft_ms": "TTFT", "predicted_tpot_ms": "TPOT"}
RULE_COST = "rule_cost"
"""The reason that holds what the fallback rule would have made of an endpoint."""

Decision = Mapping[str, Any]
Endpoint = Mapping[str, Any]


def explanation(decision: Decision) -> Group:
    """Request, endpoints best first, decision and outcome."""
    endpoints = sorted(decision["endpoints"], key=lambda row: (row["address"] != decision["chosen"], _rank(row)))
    parts: list[RenderableType] = [_request(decision), _known(decision, endpoints), _made(decision, endpoints)]
    if note := _what_rule_would_do(decision):
        parts.append(note)
    return Group(*parts, _outcome(decision))


def _request(decision: Decision) -> Text:
    kind = "streamed" if decision["stream"] else "whole"
    said = (
        f"{decision['request_id']}: {decision['api']} for {decision['model']}, "
        f"{decision['prompt_tokens']:.0f} prompt tokens, {kind}, prefixes by {decision['matching']}\n"
        f"policy {decision['policy']} chose {decision['chosen']} with probability {decision['propensity']:.3g}"
    )
    if by := decision.get("by"):
        said += f", decided by {by}"
    if because := decision.get("because"):
        said += f": {because}"
    if left_out := decision.get("left_out"):
        said += f"\nleft out, because they fail: {', '.join(left_out)}"
    return _plain(said)


def _known(decision: Decision, endpoints: Sequence[Endpoint]) -> Table:
    table = _table("what was known", "queued, hit, new, context: tokens; run, wait, KV: as scraped; own: our requests")
    for title in KNOWN.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in endpoints:
        table.add_row(_marked(decision, row), *(_number(row[name]) for name in KNOWN))
    return table


def _made(decision: Decision, endpoints: Sequence[Endpoint]) -> Table:
    reasons = [
        name for name in dict.fromkeys(name for row in endpoints for name in row["reasons"]) if name not in KNOWN
    ]
    table = _table(f"what {decision['policy']} made of it", "the lowest cost wins; - is out of the question")
    for name in (*reasons, "cost"):
        table.add_column(_plain(name.replace("_", " ")), justify="right")
    for row in endpoints:
        values = (*(row["reasons"].get(name) for name in reasons), row["cost"])
        table.add_row(_marked(decision, row), *(_number(value) for value in values))
    return table


def _what_rule_would_do(decision: Decision) -> Text | None:
    costs = {row["address"]: row["reasons"].get(RULE_COST) for row in decision["endpoints"]}
    finite = {address: cost for address, cost in costs.items() if cost is not None}
    if not finite:
        return None
    best = min(finite.values())
    would = [address for address, cost in finite.items() if cost == best]
    same = "as it was" if decision["chosen"] in would else "not what was chosen"
    return _plain(f"LMetric alone would have picked {' or '.join(would[:3])}: {same}")


def _outcome(decision: Decision) -> Text:
    outcome = decision["outcome"]
    if outcome is None:
        return _plain("the answer still runs")
    said = f"status {outcome['status']}, {'complete' if outcome['complete'] else 'cut off'}"
    if fault := outcome.get("fault"):
        said += f", {fault}"
    if outcome["served"] not in (None, decision["chosen"]):
        said += f", served by {outcome['served']}"
    (reasons,) = (row["reasons"] for row in decision["endpoints"] if row["address"] == decision["chosen"])
    for name, title in PREDICTIONS.items():
        measured, predicted = outcome[f"{title.lower()}_ms"], reasons.get(name)
        if measured is not None:
            said += f", {title} {measured:.1f} ms"
            said += "" if predicted is None else f" (predicted {predicted:.1f})"
    for name, title in (("prompt_tokens", "prompt"), ("cached_tokens", "cached"), ("completion_tokens", "output")):
        said += "" if outcome[name] is None else f", {outcome[name]} {title} tokens"
    return _plain(said)


def _table(title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    table.add_column("endpoint", no_wrap=True)
    return table


def _marked(decision: Decision, row: Endpoint) -> Text:
    chosen = row["address"] == decision["chosen"]
    return _plain(f"{'> ' if chosen else '  '}{row['address']}", "bold" if chosen else "")


def _rank(row: Endpoint) -> float:
    return float("inf") if row["cost"] is None else float(row["cost"])


def _number(value: float | None) -> str:
    """Three digits that count, never an exponent.

    >>> [_number(value) for value in (None, 0, 0.01234, 12.345, 123456.7)]
    ['-', '0', '0.012', '12.3', '123457']
    """
    if value is None:
        return "-"
    digits = next((digits for digits, least in enumerate((100, 10, 1)) if abs(value) >= least), 3)
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits}f}"


def _plain(text: str, style: str = "") -> Text:
    """Text of others: no markup, nothing that moves a terminal's cursor."""
    return Text("".join(c if c.isprintable() or c == "\n" else "?" for c in text), style)


def fetch(admin: str, request_id: str, pool: str = "") -> list[dict[str, Any]]:
    """All kept decisions about a request, of the first pool or of this one.

    Raises ClickException where there is none or nobody answers.
    """
    if not admin.startswith(("http://", "https://")):
        raise click.ClickException("--admin is no http URL")
    url = f"{admin.rstrip('/')}/decisions/{urllib.parse.quote(request_id, safe='')}"
    url += f"?{urllib.parse.urlencode({'pool': pool})}" if pool else ""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            found: list[dict[str, Any]] = json.loads(response.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        said = (
            f"no kept decision{f' of pool {pool}' if pool else ''} has this request id"
            if error.code == 404
            else f"{url} answered {error.code}"
        )
        raise click.ClickException(said) from error
    except (OSError, ValueError) as error:
        raise click.ClickException(f"no picker answers at {admin}: {error}") from error
    return found


@click.command(context_settings={"show_default": True})
@click.argument("request_id")
@click.option("--admin", default=ADMIN, help="The picker's admin port; every worker has its own.")
@click.option("--pool", default="", help="Of a picker with several pools; default: the first.")
@click.option("--json", "as_json", is_flag=True, help="The decision log's own words.")
def explain(request_id: str, admin: str, pool: str, as_json: bool) -> None:
    """Why a request was sent where it was: x-request-id to everything that the pick knew, and what came of it."""
    decisions = fetch(admin, request_id, pool)
    if as_json:
        click.echo(json.dumps(decisions, indent=2))
        return
    console = Console()
    for decision in decisions:
        console.print(explanation(decision))
