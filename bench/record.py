"""The record of one run, and what it says: rows for a table, beside the targets. Pure: plain dicts in and out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.bed import IN_TURN, LEAN, LEARNED
from bench.latency import MEASURED
from bench.rounds import SIZES, Figures, Measured

Record = Mapping[str, Any]

RESPONSE = {"none": "access log", "duplex": "echo"}
POOLS = (4, 64, 256, 1024)
_IN_TURN = IN_TURN.removeprefix(LEAN)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a median: at most `bound`, or at least where `least`."""

    bound: float
    least: bool = False

    def met(self, median: float) -> bool:
        return median >= self.bound if self.least else median <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.bound:,.0f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a figure of the record under its path, named for people."""

    path: tuple[str, ...]
    title: str
    unit: str
    target: Target | None = None


def _load_rows(targets: Mapping[str, float], of: tuple[str, ...] = (), said: str = "") -> Iterator[Row]:
    """What rounds of load give, by one transport: under `of` in the record, `said` at the end of the title."""
    ways = {**RESPONSE, "learned": "access log, learned", "learned_64": "access log, learned, 64 endpoints"}
    for name, way in ways.items():
        for size in SIZES:
            title = f"request, {size[:-1]} KB, {way}{said}"
            yield Row(
                (*of, "cpu_us_per_request", f"{name}_{size}"), title, "µs CPU", _at_most(targets, f"{name}_{size}")
            )
    yield Row((*of, "cpu_us_per_chunk"), f"streamed chunk, echo{said}", "µs CPU", _at_most(targets, "chunk"))


def _at_most(targets: Mapping[str, float], key: str) -> Target | None:
    return Target(targets[key]) if key in targets else None


ROWS = (
    *_load_rows({"none_2k": 750, "none_32k": 1000, "duplex_2k": 750, "duplex_32k": 1000}),
    *_load_rows({"learned_64_2k": 120, "learned_64_32k": 220, "chunk": 10}, ("lean",), ", lean"),
    *(
        Row(
            ("lean", "cpu_us_per_request", f"{_IN_TURN}_{size}"),
            f"request, {size[:-1]} KB, endpoints in turn, lean",
            "µs CPU",
        )
        for size in SIZES
    ),
    *(
        Row(
            ("added_latency_ms", name, q),
            f"added latency, {q}, {said}",
            "ms",
            None if name == IN_TURN else Target(bound),
        )
        for name, said in MEASURED.items()
        for q, bound in (("p50", 1), ("p99", 5))
    ),
    *(
        Row(("service_us_per_request", f"{path}_{size}"), f"our own code, {size[:-1]} KB, {said}", "µs CPU")
        for path, said in RESPONSE.items()
        for size in SIZES
    ),
    *(
        Row((f"score_us_{name}", str(n)), f"score, {n:,} endpoints, {name}", "µs CPU", target)
        for name, targets in (
            ("learned", (Target(60), Target(200))),
            ("learned_large", (Target(60), Target(200))),
            ("multiplicative", (None, None)),
        )
        for n, target in zip((64, 1024), targets, strict=True)
    ),
    *(
        Row(("pick_us", str(n)), f"pick, {n:,} endpoints, text mode", "µs CPU", target)
        for n, target in ((4, None), (64, Target(100)), (256, None), (1024, Target(400)))
    ),
    *(
        Row(("pick_us_exact", str(n)), f"pick, {n:,} endpoints, exact mode", "µs CPU", target)
        for n, target in ((4, None), (64, Target(100)), (256, None), (1024, Target(400)))
    ),
    *(Row(("pick_us_learned", str(n)), f"pick, {n:,} endpoints, text mode, learned", "µs CPU") for n in POOLS),
    *(Row(("end_us", str(n)), f"end of a request, {n:,} endpoints", "µs CPU") for n in POOLS),
    *(Row(("end_us_learned", str(n)), f"end of a request, {n:,} endpoints, learned", "µs CPU") for n in POOLS),
    Row(("kv_blocks_per_s",), "KV blocks indexed", "per CPU second", Target(50_000, least=True)),
    Row(("index_bytes_per_pair",), "prefix index, 10 M (block, endpoint) pairs", "B per pair", Target(64)),
)


def load_record(found: Measured, versions: Mapping[str, str]) -> dict[str, Any]:
    """The part of the record that rounds of load give; `versions` names the peers that took part.

    Our own figures are those of the transport `grpcio`; those of `lean` stand under `lean`, by the same keys. A peer
    has one way of passing an answer: its figures stand under the keys of the loads that it was given.
    """
    record = _ours(found, "")
    record["lean"] = _ours(found, LEAN)
    record["peers"] = {
        name: {
            "version": version,
            "policy": "cache_aware",
            "cpu_us_per_request": {f"none_{size}": found.own[f"{name}_{size}"].as_json() for size in SIZES},
            "cpu_us_per_chunk": found.own[f"{name}_chunk"].as_json(),
        }
        for name, version in versions.items()
    }
    record |= {"load_average": found.loads, "yardstick_ms": found.yardsticks}
    return record


def _ours(found: Measured, transport: str) -> dict[str, Any]:
    """What was measured of the targets whose names begin with `transport`."""
    record: dict[str, Any] = {}
    for name, figures in (("cpu_us", found.own), ("envoy_us", found.envoy), ("messages", found.messages)):
        record[f"{name}_per_request"] = _plain(figures, transport, (*RESPONSE, *LEARNED, _IN_TURN))
        for path, suffix in (("duplex", ""), ("none", "_none")):
            if (key := f"{transport}{path}_chunk") in figures:
                record[f"{name}_per_chunk{suffix}"] = figures[key].as_json()
    return record


def _plain(figures: Figures, transport: str, names: Iterable[str]) -> dict[str, Any]:
    keys = (f"{name}_{size}" for name in names for size in SIZES)
    return {key: figures[transport + key].as_json() for key in keys if transport + key in figures}


@dataclass(frozen=True, slots=True)
class Line:
    """A row as it is shown. `met` is None where nothing was aimed at."""

    title: str
    median: str
    spread: str
    runs: int
    unit: str
    target: str
    met: bool | None
    p99: str


def lines(record: Record) -> Iterator[Line]:
    """Every row whose figure was measured, in order."""
    for row in ROWS:
        figure = find(record, row.path)
        if figure is None:
            continue
        yield Line(
            title=row.title,
            median=number(figure["median"]),
            spread=f"{number(figure['min'])} – {number(figure['max'])}",
            runs=len(figure["runs"]),
            unit=row.unit,
            target=str(row.target) if row.target else "",
            met=row.target.met(figure["median"]) if row.target else None,
            p99=number(figure["p99"]) if "p99" in figure else "",
        )


def comparison(record: Record) -> list[tuple[str, ...]]:
    """Header, then one line per load: picker and the Envoy beside it on both response paths, by each transport that was
    measured, then every peer."""
    peers, lean = record.get("peers", {}), record.get("lean", {})
    ours = {"": record, **({"lean, ": lean} if lean.get("cpu_us_per_request") else {})}
    said = [f"{whose}, {which}{way}" for which in ours for way in RESPONSE.values() for whose in ("picker", "Envoy")]
    table = [("CPU µs per", *said, *(f"{name} {peer['version']}" for name, peer in peers.items()))]
    for size in SIZES:
        own = (
            _median(each, (whose, f"{path}_{size}"))
            for each in ours.values()
            for path in RESPONSE
            for whose in ("cpu_us_per_request", "envoy_us_per_request")
        )
        theirs = (_median(peer, ("cpu_us_per_request", f"none_{size}")) for peer in peers.values())
        table.append((f"request, {size[:-1]} KB", *own, *theirs))
    chunks = (
        _median(each, (key,))
        for each in ours.values()
        for key in ("cpu_us_per_chunk_none", "envoy_us_per_chunk_none", "cpu_us_per_chunk", "envoy_us_per_chunk")
    )
    table.append(("streamed chunk", *chunks, *(_median(peer, ("cpu_us_per_chunk",)) for peer in peers.values())))
    return table


def find(record: Record, path: Sequence[str]) -> dict[str, Any] | None:
    """The figure under a path of keys, None where it was not measured."""
    found: Any = record
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else None


def number(value: float) -> str:
    """As many digits as mean something.

    >>> number(0.1234), number(12.34), number(1234567.0)
    ('0.12', '12.3', '1,234,567')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def _median(record: Record, path: Sequence[str]) -> str:
    figure = find(record, path)
    return "–" if figure is None else number(figure["median"])
