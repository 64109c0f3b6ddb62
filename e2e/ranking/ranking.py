"""One workload, one pool, one policy: played by real processes behind a real Envoy, and by the simulator.

Both sides get the same requests at the same times, engines of the same step-time row, and a router that knows prompts
by their text. A run's seed draws the arrivals inside the trace's rounding and the picks among equals, on both sides.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from picker.server.processes import Children
from picker.server.replay_client import Replay, replay
from picker.server.up.stack import SimulatedEngines, Stack
from picker.simulator.ended import Ended
from picker.simulator.replay_run import Cell, Setting, run_cell
from picker.simulator.signals import Signals
from picker.simulator.trace import cut, parse_trace

WORKLOAD = Path(__file__).with_name("workload.jsonl")
ENGINE = "l40s/llama-3-8b tp1"
ENGINES = 4


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers of some runs: TTFT in ms of each, prompt tokens over all of them, and how many were found cached."""

    ttft_ms: tuple[float, ...]
    prompt_tokens: int
    cached_tokens: int

    @property
    def mean_ms(self) -> float:
        return float(np.mean(self.ttft_ms))

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self.ttft_ms, 99))

    @property
    def hit_ratio(self) -> float:
        return self.cached_tokens / self.prompt_tokens

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(
            self.ttft_ms + other.ttft_ms,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
        )


def simulated(policy: str, seed: int, requests: int | None = None) -> Answers:
    """What `picker replay --matching text --time-scale 1` makes of the first so many requests (None: all)."""
    ended: list[Ended] = []
    setting = Setting(str(WORKLOAD), f"{ENGINE}:{ENGINES}", limit=requests, signals=Signals(matching="text"))
    run_cell(setting, Cell(policy, None, seed, 1.0), ended.append)
    return Answers(
        tuple(request.ttft_ms for request in ended if request.ttft_ms is not None),
        sum(request.prompt_tokens for request in ended),
        sum(request.cached_tokens for request in ended),
    )


async def through_envoy(policy: str, seed: int, requests: int | None = None) -> Answers:
    """What a client sees of them behind Envoy, `picker serve` and engine processes, all of them newly started.

    Raises AssertionError for an answer that is not whole.
    """
    trace = cut(parse_trace(WORKLOAD.read_bytes(), seed=seed), count=requests)
    with tempfile.TemporaryDirectory(prefix="picker-ranking-") as folder:
        children = Children(Path(folder) / "logs")
        stack = Stack(children, Path(folder))
        try:
            await stack.start_simulated(SimulatedEngines([ENGINE] * ENGINES))
            await stack.start_picker(argv=["--policy", policy, "--seed", str(seed)])
            await stack.start_envoy("access-log")
            # A completion's prompt is the trace's to the token; a chat's would have a header before it.
            sent = (await replay(Replay(stack.url, stack.model, trace, api="completions"))).sent
        finally:
            await children.stop()
    assert not [each for each in sent if not each.ok]
    return Answers(
        tuple(each.ttft_ms for each in sent if each.ttft_ms is not None),
        sum(each.prompt_tokens for each in sent),
        sum(each.cached_tokens for each in sent),
    )


def ranked(answers: Mapping[str, Answers]) -> list[str]:
    """Policies by mean TTFT, the shortest first."""
    return sorted(answers, key=lambda policy: answers[policy].mean_ms)


def table(real: Mapping[str, Answers], model: Mapping[str, Answers], policies: Sequence[str]) -> str:
    """Both sides next to each other, as a Markdown table."""
    lines = [
        "| policy | TTFT mean ms, Envoy | simulator | | P99 ms, Envoy | simulator | | prefix hit, Envoy | simulator |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for policy in policies:
        r, m = real[policy], model[policy]
        lines.append(
            f"| `{policy}` | {r.mean_ms:.0f} | {m.mean_ms:.0f} | {_error(m.mean_ms, r.mean_ms)} | "
            f"{r.p99_ms:.0f} | {m.p99_ms:.0f} | {_error(m.p99_ms, r.p99_ms)} | {r.hit_ratio:.3f} | {m.hit_ratio:.3f} |"
        )
    return "\n".join(lines)


def _error(model: float, real: float) -> str:
    return f"{100 * (model / real - 1):+.1f} %"
