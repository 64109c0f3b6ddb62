"""The results section of docs/bench.md, written from the record: `python -m bench.page`.

A test holds the page to bench/results.json; a whole bench run writes both.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.record import Record, comparison, lines

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).parents[1] / "docs" / "bench.md"
BEGIN, END = "<!-- results: python -m bench.page -->", "<!-- end of results -->"


def section(record: Record) -> str:
    """The record as Markdown: the machine, the figures beside their targets, the comparison."""
    facts, loads, yard = record["machine"], record.get("load_average") or [0.0], record.get("yardstick_ms") or [0.0]
    machine = (
        f"{facts['date']}, `{facts['command']}`, {facts['cores']} cores ({facts['cpu']}), kernel {facts['kernel']}, "
        f"Python {facts['python']}, Envoy {facts['envoy']}, grpcio {facts['grpcio']}; "
        f"load average before the rounds {min(loads):.1f} to {max(loads):.1f}; "
        f"yardstick {min(yard):.1f} to {max(yard):.1f} ms."
    )
    figures = [("figure", "median", "min – max", "runs", "unit", "p99", "target", "met")]
    for line in lines(record):
        met = {None: "", True: "yes", False: "**no**"}[line.met]
        figures.append((line.title, line.median, line.spread, str(line.runs), line.unit, line.p99, line.target, met))
    parts = [machine, _table(figures)]
    if record.get("cpu_us_per_request"):
        parts.append(_table(comparison(record)))
    return "\n\n".join(parts)


def updated(page: str, record: Record) -> str:
    """The page with the results between its marks replaced. Raises ValueError for a page without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{section(record)}\n\n{END}{after}"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    header, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([header, "|" + "---|" * len(rows[0]), *body])


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text(), msgspec.json.decode(RESULTS.read_bytes())))


if __name__ == "__main__":
    main()
