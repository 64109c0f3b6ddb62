"""Made-up workloads: `gen:shared?groups=25&share=0.47&rate=8&requests=2000`.

Requests of one group begin with the group's prefix. Lengths come from a mix, arrivals from a Poisson or Gamma process;
rate and sharing may shift half-way. The defaults follow Lodestar's synthetic loads (arXiv 2606.00946, released code: 25
prefixes of 1k to 8k tokens).
"""

import random
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
import numpy as np

from picker.simulator.workload import NAMESPACE, Arrival, Job, Workload, stretch, unshared

SCHEME = "gen:"
GRAIN_TOKENS = 64
"""Prefixes are shared in pieces of so many tokens."""
MIXES: dict[str, tuple[tuple[float, int, int], ...]] = {
    "short": ((1.0, 64, 2048),),
    "medium": ((0.25, 1024, 1024), (0.25, 2048, 2048), (0.25, 4096, 4096), (0.25, 8192, 8192)),
    "chat": ((1.0, 32, 4096),),
    "mixed": ((0.7, 32, 4096), (0.3, 8192, 131072)),
    "long": ((0.6, 512, 8192), (0.3, 8192, 32768), (0.1, 32768, 131072)),
}
"""Share, shortest and longest prompt in tokens (drawn log-uniformly) of each part of a length mix. `chat` is as short
as ShareGPT's; `mixed` has three in ten from 8k to 128k beside it."""


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to make. `rate` in requests/s; `share` is the mean share of a prompt that is its group's prefix; `cv` is the
    coefficient of variation of the gaps (1 is Poisson, else Gamma); `rate_after` and `share_after` hold for the second
    half of the requests; `zipf` skews the popularity of groups (0 is even); `output` is the median answer in tokens."""

    groups: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 25
    share: Annotated[float, msgspec.Meta(ge=0, le=0.95)] = 0.47
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e5)] = 8.0
    requests: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2000
    cv: Annotated[float, msgspec.Meta(gt=0, le=20)] = 1.0
    mix: str = "medium"
    output: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 200
    zipf: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0
    rate_after: Annotated[float, msgspec.Meta(gt=0, le=1e5)] | None = None
    share_after: Annotated[float, msgspec.Meta(ge=0, le=0.95)] | None = None


def parse_shape(spec: str) -> Shape:
    """`gen:NAME?key=value&...`; the name is free. Raises ValueError naming what is wrong."""
    query = spec.removeprefix(SCHEME).partition("?")[2]
    given = parse_qsl(query, keep_blank_values=True)
    try:
        shape = msgspec.convert(dict(given), Shape, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{spec}: {error}; there are: {', '.join(Shape.__struct_fields__)}") from None
    if len(dict(given)) != len(given):
        raise ValueError(f"{spec}: a key is given twice")
    if shape.mix not in MIXES:
        raise ValueError(f"{spec}: no length mix {shape.mix!r}; there are: {', '.join(MIXES)}")
    return shape


def generate(spec: str, *, seed: int = 0, limit: int | None = None, skip: int = 0) -> Workload:
    """The workload of a spec, without its first `skip` requests. Raises ValueError."""
    shape = parse_shape(spec)
    draw = random.Random(seed)
    popularity = [(group + 1) ** -shape.zipf for group in range(shape.groups)]
    mix = MIXES[shape.mix]
    arrivals: list[Arrival] = []
    at = 0.0
    for index in range(shape.requests if limit is None else min(skip + limit, shape.requests)):
        shifted = 2 * index >= shape.requests
        rate = shape.rate_after if shifted and shape.rate_after is not None else shape.rate
        share = shape.share_after if shifted and shape.share_after is not None else shape.share
        _, shortest, longest = draw.choices(mix, [part[0] for part in mix])[0]
        prompt = round(shortest * (longest / shortest) ** draw.random())
        group = draw.choices(range(shape.groups), popularity)[0]
        answer = min(16 * shape.output, max(1, round(draw.lognormvariate(0, 0.8) * shape.output)))
        arrivals.append((at, _job(index, prompt, answer, group, share)))
        # A Gamma of shape 1 / cv^2 has this coefficient of variation; cv = 1 is the exponential.
        at += 1e3 * draw.gammavariate(shape.cv**-2, shape.cv**2 / rate)
    if skip and skip >= len(arrivals):
        raise ValueError(f"{spec}: no request after the first {skip}")
    return Workload(spec, stretch(arrivals, skip, limit))


def _job(index: int, prompt: int, output: int, group: int, share: float) -> Job:
    runs = unshared(index + 1, prompt, GRAIN_TOKENS)
    shared = round(share * prompt / GRAIN_TOKENS)
    if shared:
        # Groups live in the lower half of owner 0, so their numbers meet nobody's.
        prefix = [group * (NAMESPACE >> 18), shared]
        runs = np.array([prefix, [int(runs[0, 0]), int(runs[0, 1]) - shared]], np.uint64)
    return Job(index, prompt, output, runs, GRAIN_TOKENS)
