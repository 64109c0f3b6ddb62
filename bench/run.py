"""Measure everything: `python -m bench.run [--short] [--only KEY,KEY] [--at-once N] [--json FILE]`.

Prints the table. A whole run also writes bench/results.json and the results in docs/bench.md; a short or partial one
writes only where `--json` says. KEY: none_2k, none_32k, none_chunk, duplex_2k, ... , learned_2k, learned_64_2k, ... ,
the same after `lean_` (lean_none_2k, ...), lean_in_turn_2k, lean_in_turn_32k, peers, latency, service, score, pick,
index.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench import page
from bench.bed import IN_TURN, LEAN, LEARNED, PATHS, bed
from bench.client import AT_ONCE, LoadError
from bench.figures import machine
from bench.kv_index import index_bytes_per_pair, kv_blocks_per_s
from bench.latency import added_latency_ms
from bench.learned import LARGE, RULE, score_us
from bench.peers import PEERS
from bench.pick_time import POOL_SIZES, pick_us
from bench.record import Record, comparison, lines, load_record
from bench.rounds import KINDS, SHORT, SIZES, Plan, measure
from bench.service_time import service_us
from picker.server.up.stack import StackError

LOADS = {
    f"{lean}{name}_{kind}": (lean + name, kind)
    for lean in ("", LEAN)
    for name, kinds in (*((path, KINDS) for path in PATHS), *((learned, tuple(SIZES)) for learned in LEARNED))
    for kind in kinds
} | {f"{IN_TURN}_{kind}": (IN_TURN, kind) for kind in SIZES}
KEYS = (*LOADS, "peers", "latency", "service", "score", "pick", "index")
QUICK = tuple(key for key in KEYS if key not in LOADS or key.startswith(LEAN) or key in ("none_2k", "duplex_chunk"))
"""What a short run does by itself: every load by one transport, two of them by the other."""


async def load_figures(keys: Sequence[str], plan: Plan, console: Console) -> Record:
    """The part of the record that needs processes: CPU per request and per chunk, ours and the peers'."""
    ours = [scenario for key, scenario in LOADS.items() if key in keys]
    wanted = [peer.name for peer in PEERS] if "peers" in keys else []
    async with bed({path for path, _ in ours} | set(wanted)) as targets:
        theirs = [(name, kind) for name in wanted if name in targets for kind in KINDS]

        def told(scenario: str, us: float) -> None:
            console.print(f"{scenario:<24}{us:10.1f} µs", style="dim", highlight=False)

        found = await measure(targets, ours + theirs, plan, told)
    versions = {peer.name: peer.version or "" for peer in PEERS if peer.name in targets}
    return load_record(found, versions)


SCORED = (64, 1024)


def latency_figures(short: bool) -> dict[str, Any]:
    """What a pick adds to a request's time through Envoy."""
    rounds, requests = (1, 200) if short else (5, 1000)
    found = uvloop.run(added_latency_ms(rounds, requests))
    return {
        "added_latency_ms": {
            name: {q: figure.as_json() for q, figure in figures.items()} for name, figures in found.items()
        }
    }


def service_figures(short: bool) -> dict[str, Any]:
    """Our own code alone, for the loads that `cpu_us_per_request` has with everything."""
    runs, requests = (2, 100) if short else (5, 500)
    return {
        "service_us_per_request": {
            f"{path}_{kind}": service_us(path, size, runs, requests).as_json()
            for path in PATHS
            for kind, size in SIZES.items()
        }
    }


def score_figures(short: bool) -> dict[str, Any]:
    """What the learned policy takes to score a pool, and what the rule underneath takes of that."""
    runs, calls = (2, 200) if short else (5, 2000)
    return {
        f"score_us_{name}": {str(n): score_us(name, n, runs, calls).as_json() for n in SCORED}
        for name in ("learned", LARGE, RULE)
    }


def pick_figures(short: bool) -> dict[str, Any]:
    """Picks and ends in this process, at every pool size, by the rule and learned."""
    runs, picks = (2, 200) if short else (5, 1000)
    figures = ("pick_us", "pick_us_exact", "end_us", "pick_us_learned", "end_us_learned")
    record: dict[str, Any] = {name: {} for name in figures}
    for n in POOL_SIZES:
        pick, end = pick_us(n, "text", runs, picks)
        exact, _ = pick_us(n, "exact", runs, picks)
        record["pick_us"][str(n)], record["end_us"][str(n)] = pick.as_json(), end.as_json()
        record["pick_us_exact"][str(n)] = exact.as_json()
        pick, end = pick_us(n, "text", runs, picks, "learned")
        record["pick_us_learned"][str(n)], record["end_us_learned"][str(n)] = pick.as_json(), end.as_json()
    return record


def index_figures(short: bool) -> dict[str, Any]:
    """KV events into the prefix index, and what its pairs weigh."""
    runs, batches, fills, pairs = (2, 256, 1, 200_000) if short else (5, 2048, 3, 10_000_000)
    return {
        "kv_blocks_per_s": kv_blocks_per_s(runs, batches).as_json(),
        "index_bytes_per_pair": index_bytes_per_pair(fills, pairs).as_json(),
    }


def show(record: Record, console: Console) -> None:
    """The table, and the comparison under it."""
    table = Table(title="picker, measured")
    for column in ("figure", "median", "min – max", "runs", "unit", "p99", "target", "met"):
        table.add_column(column, justify="left" if column in ("figure", "unit") else "right")
    for line in lines(record):
        met = "" if line.met is None else "[green]yes[/green]" if line.met else "[red]no[/red]"
        table.add_row(line.title, line.median, line.spread, str(line.runs), line.unit, line.p99, line.target, met)
    console.print(table)
    if record.get("cpu_us_per_request"):
        header, *rows = comparison(record)
        beside = Table(*header, title="the same load through others")
        for row in rows:
            beside.add_row(*row)
        console.print(beside)
    for peer in PEERS:
        if peer.version is None:
            console.print(f"{peer.name}: not installed (bench/install_peers.sh)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="2 rounds of 200 requests: does it run at all")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="KEY,KEY")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, metavar="N", help=f"requests or answers ({AT_ONCE})")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    given.only = given.only or (QUICK if given.short else KEYS)
    if unknown := sorted(set(given.only) - set(KEYS)):
        parser.error(f"no such key: {', '.join(unknown)}; there are {', '.join(KEYS)}")
    console, facts = Console(width=None if sys.stdout.isatty() else 130), machine()
    plan = replace(SHORT if given.short else Plan(), at_once=given.at_once)
    record: dict[str, Any] = {"machine": facts}
    try:
        if {*LOADS, "peers"} & set(given.only):
            record |= uvloop.run(load_figures(given.only, plan, console))
        if "latency" in given.only:
            record |= latency_figures(given.short)
    except* (StackError, LoadError, TimeoutError, OSError) as errors:
        raise SystemExit(f"bench: {errors.exceptions[0]}") from errors
    if "service" in given.only:
        record |= service_figures(given.short)
    if "score" in given.only:
        record |= score_figures(given.short)
    if "pick" in given.only:
        record |= pick_figures(given.short)
    if "index" in given.only:
        record |= index_figures(given.short)
    show(record, console)
    if given.json:
        write(given.json, record)
    elif plan == Plan() and set(given.only) == set(KEYS):
        write(page.RESULTS, record)
        page.main()


def write(file: Path, record: Record) -> None:
    """The record as JSON, for people too."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


if __name__ == "__main__":
    main()
