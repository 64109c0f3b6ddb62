"""The live table: engines, picks, latencies, and how far the replay is."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


def progress() -> Progress:
    """The replay's progress bar."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def screen(policy: str, endpoints: Sequence[Mapping[str, Any]], bar: Progress) -> Group:
    """Table and bar, one below the other."""
    return Group(engine_table(policy, endpoints), bar)


def engine_table(policy: str, endpoints: Sequence[Mapping[str, Any]]) -> Table:
    """One row per endpoint of the admin port's `/pool` answer.

    >>> row = {"address": "127.0.0.1:1", "running": 2.0, "waiting": 0.0, "kv_usage": 0.25, "in_flight": 2.0,
    ...        "queued_tokens": 512.0, "picks": 7, "failed": 0, "prefix_hit_ratio": None, "ttft_ms": None}
    >>> engine_table("multiplicative", [row]).row_count
    1
    """
    caption = "prefill: queued tokens; p50, p99: TTFT in ms"
    table = Table(title=f"policy: {policy}", caption=caption, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("engine", no_wrap=True)
    for name in ("run", "wait", "KV %", "prefill", "hit %", "picks", "fail", "p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in endpoints:
        ttft = row["ttft_ms"]
        table.add_row(
            str(row["address"]),
            f"{row['running']:.0f}",
            f"{row['waiting']:.0f}",
            f"{100 * row['kv_usage']:.1f}",
            f"{row['queued_tokens']:.0f}",
            _percent(row["prefix_hit_ratio"]),
            str(row["picks"]),
            str(row["failed"]),
            "-" if ttft is None else f"{ttft['p50']:.0f}",
            "-" if ttft is None else f"{ttft['p99']:.0f}",
        )
    return table


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f}"
