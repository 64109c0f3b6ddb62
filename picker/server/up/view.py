"""The live table: engines, picks, latencies, and how far the replay is."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from picker.routing.failing import State
from picker.routing.outcome import Fault
from picker.server.up.handoff import HandedOff

WHY = {
    Fault.UNREACHED.value: "could not be reached",
    Fault.BROKEN.value: "answers with errors or breaks off",
}
NEXT = {
    State.LEFT_OUT.value: "gets no requests for {for_s} s, then one tries it",
    State.ON_TRIAL.value: "gets no requests while one tries it",
    State.DUE.value: "the next request there tries it",
}
"""Of suspects nothing is said: they get requests as before."""


def progress() -> Progress:
    """The replay's progress bar."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def screen(
    policy: str,
    endpoints: Sequence[Mapping[str, Any]],
    learning: Mapping[str, Any] | None,
    bar: Progress,
    stages: HandedOff | None = None,
) -> Group:
    """Table, who is left out, what is being learned and handed off if anything is, and bar, one below the other."""
    failing = [] if (out := left_out_lines(endpoints)) is None else [out]
    learned = () if learning is None else (learning_lines(learning),)
    moved = () if stages is None else (handoff_table(stages), handoff_line(stages))
    return Group(engine_table(policy, endpoints), *failing, *learned, *moved, bar)


def engine_table(policy: str, endpoints: Sequence[Mapping[str, Any]]) -> Table:
    """One row per endpoint of the admin port's `/pool` answer.

    >>> row = {"address": "127.0.0.1:1", "running": 2.0, "waiting": 0.0, "kv_usage": 0.25, "in_flight": 2.0,
    ...        "queued_tokens": 512.0, "picks": 7, "recent_picks": 7, "failed": 0, "prefix_hit_ratio": None,
    ...        "ttft_ms": None, "hardware": "l40s/llama-3-8b tp1"}
    >>> engine_table("multiplicative", [row]).row_count
    1
    """
    caption = "KV, hit, share of latest picks: %; queue: tokens to prefill; p50, p99: TTFT, ms"
    recent = sum(row["recent_picks"] for row in endpoints)
    table = Table(title=f"policy: {policy}", caption=caption, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("port", no_wrap=True)
    table.add_column("GPU", no_wrap=True)
    for name in ("run", "wait", "KV", "queue", "hit", "picks", "share", "fail", "p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in endpoints:
        ttft = row["ttft_ms"]
        table.add_row(
            _port(row),
            str(row["hardware"]).partition("/")[0].partition("_")[0],
            f"{row['running']:.0f}",
            f"{row['waiting']:.0f}",
            f"{100 * row['kv_usage']:.0f}",
            f"{row['queued_tokens']:.0f}",
            _percent(row["prefix_hit_ratio"]),
            str(row["picks"]),
            _percent(row["recent_picks"] / recent if recent else None),
            str(row["failed"]),
            "-" if ttft is None else f"{ttft['p50']:.0f}",
            "-" if ttft is None else f"{ttft['p99']:.0f}",
        )
    return table


def left_out_lines(endpoints: Sequence[Mapping[str, Any]]) -> Text | None:
    """Why and how long endpoints get no requests, by the admin port's `/pool` answer; None where all of them do.

    >>> failing = {"state": "left out", "because": "unreached", "in_a_row": 3, "for_s": 3.2}
    >>> fine = {"address": "127.0.0.1:2", "failing": None}
    >>> print(left_out_lines([{"address": "127.0.0.1:1", "failing": failing}, fine]))
    port 1 could not be reached: gets no requests for 4 s, then one tries it
    """
    lines = []
    for row in endpoints:
        known = row["failing"]
        if known is not None and known["state"] in NEXT:
            what = NEXT[known["state"]].format(for_s=math.ceil(known["for_s"]))
            lines.append(f"port {_port(row)} {WHY[known['because']]}: {what}")
    if len(lines) > len(endpoints) // 2:
        lines.append("more than half fail: requests go to some of them all the same")
    return Text("\n".join(lines), style="red") if lines else None


def _port(row: Mapping[str, Any]) -> str:
    return str(row["address"]).rpartition(":")[2]


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.0f}"


def handoff_table(handed: HandedOff) -> Table:
    """One row per engine: its part in the plan, the streams that changed engines, and how to make them do so.

    >>> from picker.server.up.handoff import Beside, Tally
    >>> one = Beside(0.0, 256.0, Tally(), pid=4711, alive=True)
    >>> handoff_table(HandedOff("as laid down", {"127.0.0.1:1": one})).row_count
    1
    """
    caption = "lengths in tokens; in, out: streams that came and went; kept: that outlived their engine"
    table = Table(title=f"stages {handed.outlook}", caption=caption, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("port", no_wrap=True)
    for name in ("lengths", "in", "out", "kept", "engine"):
        table.add_column(name, justify="right", no_wrap=True)
    for address, one in handed.engines.items():
        tally, end = one.tally, "" if one.high is None else f"{one.high:.0f}"
        table.add_row(
            address.rpartition(":")[2],
            "all" if one.low is None else f"{one.low:.0f}-{end}",
            str(tally.taken),
            str(tally.moved),
            str(tally.saved),
            f"kill -9 {one.pid}" if one.alive else "dead",
        )
    return table


def handoff_line(handed: HandedOff) -> Text:
    """What the clients saw of it.

    >>> from picker.server.up.handoff import Beside, Tally
    >>> one = Beside(0.0, 256.0, Tally(taken=1, moved=4, saved=2, gap_s=0.25), pid=4711, alive=True)
    >>> print(handoff_line(HandedOff("as laid down", {"127.0.0.1:1": one})))
    4 streams moved, 2 outlived their engine; a move's median gap 250 ms
    """
    tallies = [one.tally for one in handed.engines.values()]
    gaps = [tally.gap_s for tally in tallies if tally.gap_s is not None]
    moved, saved = sum(tally.moved for tally in tallies), sum(tally.saved for tally in tallies)
    waited = f"; a move's median gap {1e3 * max(gaps):.0f} ms" if gaps else ""
    return Text(f"{moved} streams moved, {saved} outlived their engine{waited}")


def learning_lines(facts: Mapping[str, Any]) -> Text:
    """Who decides, by which model, how well; of the admin port's `/learning` answer.

    >>> facts = {"by": "rule", "because": "cold", "version": 0, "age_s": None, "rows": 12, "error": None,
    ...          "ttft_ms": {"rule": {"mean": 81.5, "answers": 9}}}
    >>> print(learning_lines(facts))
    the rule decides: cold; no model yet, 12 answers seen
    mean TTFT of the last minute: by the rule 82 ms over 9
    """
    why = "" if facts["by"] == "model" else f": {facts['because']}"
    model = f"version {facts['version']}, {facts['age_s']:.0f} s old" if facts["version"] else "no model yet"
    compared = [
        f"by the {by} {ttft['mean']:.0f} ms over {ttft['answers']}" for by, ttft in sorted(facts["ttft_ms"].items())
    ]
    off = "" if facts["error"] is None else f", predictions off by x{math.exp(facts['error']):.2f}"
    return Text(
        f"the {facts['by']} decides{why}; {model}, {facts['rows']} answers seen{off}\n"
        f"mean TTFT of the last minute: {', '.join(compared) or '-'}"
    )
