"""How long one engine step takes: a fitted row of a table, and nothing else."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

DEFAULT_ROW = "h100_sxm/llama-3-8b tp1"


@dataclass(frozen=True, slots=True)
class StepTime:
    """Milliseconds of one vLLM step as a function of what it computes.

    step = c0 + c1 min(T, t0) + c2 max(T - t0, 0) + c3 P + c4 S + c5 n + c6 S [P > 0] + c7 H / 1000
           + alpha c4 (n longest - S) + host_ms

    T tokens computed; P sum over prefills of new x (context + new / 2), in millions; S sum of decode contexts, in
    millions; n decode sequences; H context tokens already computed of the sequences that prefill.
    `alpha` is the price of unequal lengths in one decode batch (CascadeInfer, arXiv 2512.19179, section 2): the share
    of the gap between attention at the longest context and at the mean that the kernels really pay.
    `host_ms` is CPU time between two steps.
    """

    gpu: str
    model: str
    t0: float
    c0: float
    c1: float
    c2: float
    c3: float
    c4: float
    c5: float
    c6: float
    c7: float
    kv_tokens: int
    """KV capacity, in tokens."""
    source: str = ""
    mape_pct: float = math.nan
    """Error of the fit against its source, in per cent."""
    alpha: float = 0.0
    host_ms: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.gpu}/{self.model}"

    def ms(
        self, tokens: int, prefill_work: float, decode_context: int, decodes: int, history: int = 0, longest: int = 0
    ) -> float:
        """Duration of one step, in ms.

        `prefill_work` is P in tokens squared and `decode_context` S in tokens (both unscaled); `longest` is the longest
        decode context, in tokens.
        """
        linear = self.c1 * tokens if tokens <= self.t0 else self.c1 * self.t0 + self.c2 * (tokens - self.t0)
        attention = self.c4 * decode_context + self.c3 * prefill_work
        if prefill_work > 0:
            attention += self.c6 * decode_context
        if self.alpha:
            attention += self.alpha * self.c4 * (decodes * longest - decode_context)
        return self.c0 + linear + attention * 1e-6 + self.c5 * decodes + self.c7 * history * 1e-3 + self.host_ms


def parse_table(text: str) -> dict[str, StepTime]:
    """Rows by name ("gpu/model") from CSV text with a header.

    Raises ValueError, with the line, for a missing column, a number that is none, or a row given twice.
    """
    table: dict[str, StepTime] = {}
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        try:
            fit = _row(row)
        except KeyError as missing:
            raise ValueError(f"step-time table: no column {missing}") from None
        except (TypeError, ValueError) as error:
            raise ValueError(f"step-time table, line {reader.line_num}: {error}") from None
        if fit.name in table:
            raise ValueError(f"step-time table, line {reader.line_num}: {fit.name!r} is given twice")
        table[fit.name] = fit
    return table


def _row(row: Mapping[str, str]) -> StepTime:
    return StepTime(
        gpu=row["gpu"],
        model=row["model"],
        t0=_finite(row["T0"]),
        c0=_finite(row["c0"]),
        c1=_finite(row["c1"]),
        c2=_finite(row["c2"]),
        c3=_finite(row["c3"]),
        c4=_finite(row["c4"]),
        c5=_finite(row["c5"]),
        c6=_finite(row["c6"]),
        c7=_finite(row["c7"]),
        kv_tokens=int(row["kv_tokens"]),
        source=row["source"],
        mape_pct=float(row["mape_pct"]),
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number")
    return value


@cache
def load_table() -> dict[str, StepTime]:
    """The shipped rows (data/README.md names their sources). Callers must not change the dict."""
    return parse_table((files("picker.simulator") / "data" / "step_time.csv").read_text())


def load_row(name: str = DEFAULT_ROW) -> StepTime:
    """One shipped row by name. Raises ValueError naming the rows there are."""
    table = load_table()
    if name not in table:
        raise ValueError(f"no step-time row {name!r}; there are: {', '.join(sorted(table))}")
    return table[name]
