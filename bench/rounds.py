"""Rounds of load over the test bed, and the figures that come of them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from bench.client import AT_ONCE
from bench.figures import Figure, load_average, slope, yardstick_ms
from bench.load import Bill, Target, bill
from bench.prompts import chat_requests

SIZES = {"2k": 2048, "32k": 32768}
FEW_CHUNKS, MANY_CHUNKS = 8, 72

Figures = dict[str, Figure]
"""Figures by key, such as `none_2k` or `duplex_chunk`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`requests` per plain round, `streams` per streamed round, so many of them `at_once`; one round of everything is
    thrown away as warm-up."""

    rounds: int = 5
    requests: int = 1000
    streams: int = 160
    at_once: int = AT_ONCE


SHORT = Plan(rounds=2, requests=200, streams=48)
KINDS = (*SIZES, "chunk")


@dataclass(frozen=True, slots=True)
class Measured:
    """Per scenario (`target_kind`): CPU of the target and of Envoy beside it, in microseconds per request or chunk.

    `messages`: how many messages Envoy sent the picker, per request or chunk. Before each round: the load average, and
    the yardstick's milliseconds.
    """

    own: Figures
    envoy: Figures
    messages: Figures
    loads: list[float]
    yardsticks: list[float]


async def measure(
    targets: Mapping[str, Target],
    scenarios: Sequence[tuple[str, str]],
    plan: Plan,
    on_round: Callable[[str, float], None] = lambda scenario, us: None,
) -> Measured:
    """Run every scenario (target name, kind) `plan.rounds` times, in turn. Raises LoadError for a bad answer."""
    own, envoy, messages = (defaultdict[str, list[float]](list) for _ in range(3))
    loads, yardsticks = list[float](), list[float]()
    seeds = count(1)
    for round_ in range(plan.rounds + 1):
        loads.append(load_average())
        yardsticks.append(yardstick_ms())
        for name, kind in scenarios:
            costs = (
                await _chunk(targets[name], plan, seeds)
                if kind == "chunk"
                else await _plain(targets[name], SIZES[kind], plan, seeds)
            )
            if round_ == 0:
                continue
            key = f"{name}_{kind}"
            for column, value in zip((own, envoy, messages), costs, strict=True):
                column[key].append(value)
            on_round(key, costs[0])
    return Measured(_figures(own), _figures(envoy), _figures(messages), loads[1:], yardsticks[1:])


async def _plain(target: Target, size: int, plan: Plan, seeds: "count[int]") -> tuple[float, float, float]:
    """Own and Envoy's microseconds, and messages, per request with a whole JSON answer of 8 tokens."""
    cost = await bill(target, chat_requests(plan.requests, size, seed=next(seeds)), at_once=plan.at_once)
    return cost.us_per_request, cost.envoy_us_per_request, cost.messages / cost.requests


async def _chunk(target: Target, plan: Plan, seeds: "count[int]") -> tuple[float, float, float]:
    """The same per chunk of a streamed answer: growth from answers with few chunks to answers with many."""

    async def streamed(chunks: int) -> Bill:
        requests = chat_requests(plan.streams, SIZES["2k"], seed=next(seeds), stream=True, answer_tokens=chunks)
        # And the usage, and [DONE].
        return await bill(target, requests, chunks + 2, plan.at_once)

    few, many = await streamed(FEW_CHUNKS), await streamed(MANY_CHUNKS)
    x0, x1 = few.requests * FEW_CHUNKS, many.requests * MANY_CHUNKS
    return (
        1e6 * slope((x0, few.cpu_s), (x1, many.cpu_s)),
        1e6 * slope((x0, few.envoy_cpu_s), (x1, many.envoy_cpu_s)),
        slope((x0, few.messages), (x1, many.messages)),
    )


def _figures(columns: Mapping[str, Sequence[float]]) -> Figures:
    return {key: Figure(tuple(values)) for key, values in columns.items()}
