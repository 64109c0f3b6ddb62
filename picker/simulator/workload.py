"""What is asked of a cluster: jobs, when they arrive, and which of them wait for the answer to another.

A job carries its prompt's identity in *runs* of block ids, so that a trace of a billion tokens fits in memory; the
blocks themselves are spelled out when the job arrives (`chain`). Output lengths and later arrivals are the replay's
knowledge: a router never sees them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from picker.requests.request import Chain

Runs = NDArray[np.uint64]
"""Shape (runs, 2): first block id and how many consecutive ids follow, itself included."""

ID_TOKENS = 512
"""Tokens that one block id stands for, unless a workload says otherwise."""
NAMESPACE = 1 << 32
"""Block ids of different owners (sessions, requests that share nothing) are this far apart."""
MAX_OWNERS = 1 << 25
"""So that ids of the smallest blocks stay below the engines' own numbers for generated blocks."""


@dataclass(slots=True)
class Job:
    """One request of a workload. An equal block id means an equal prefix up to the end of that block.

    `then` arrives `think_ms` after this job's answer ended, whatever came of it.
    """

    index: int
    prompt_tokens: int
    output_tokens: int
    runs: Runs
    id_tokens: int = ID_TOKENS
    then: "Job | None" = None
    think_ms: float = 0.0


Arrival = tuple[float, Job]
"""When a job arrives, in ms from the start, and the job."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals in order of time; `jobs` counts what follows them as well."""

    name: str
    arrivals: Sequence[Arrival]
    closed_loop: bool = False
    jobs: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", sum(chain_length(job) for _, job in self.arrivals))

    def faster(self, factor: float) -> "Workload":
        """The same with arrivals `factor` times as dense. Think times are people's and tools', and stay."""
        return Workload(self.name, [(at / factor, job) for at, job in self.arrivals], self.closed_loop)

    @property
    def rate(self) -> float:
        """Arrivals (in a closed loop: of sessions) per second."""
        span = self.arrivals[-1][0] - self.arrivals[0][0] if self.arrivals else 0.0
        return (len(self.arrivals) - 1) / span * 1e3 if span > 0 else 0.0


def stretch(arrivals: Sequence[Arrival], skip: int, limit: int | None) -> list[Arrival]:
    """`limit` arrivals from number `skip` on, their jobs numbered and their times counted from there."""
    kept = arrivals[skip : None if limit is None else skip + limit]
    for index, (_, job) in enumerate(kept):
        job.index = index
    return [(at - kept[0][0], job) for at, job in kept]


def chain_length(job: Job) -> int:
    """Jobs from this one to the end of its session."""
    count, following = 1, job.then
    while following is not None:
        count, following = count + 1, following.then
    return count


def chain(job: Job, block_size: int) -> Chain:
    """Identity of the prompt's full engine blocks, shape (prompt_tokens // block_size,).

    Raises ValueError where `block_size` does not divide the tokens of an id.
    """
    per_id, rest = divmod(job.id_tokens, block_size)
    if rest:
        raise ValueError(f"a block size of {block_size} does not divide blocks of {job.id_tokens} tokens")
    counts = job.runs[:, 1].astype(np.int64)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    ids = np.repeat(job.runs[:, 0], counts) + (np.arange(len(before)) - before).astype(np.uint64)
    blocks: Chain = np.add.outer(ids * np.uint64(per_id), np.arange(per_id, dtype=np.uint64)).reshape(-1)
    return blocks[: job.prompt_tokens // block_size]


def single_ids(ids: Sequence[int]) -> Runs:
    """Runs of one id each."""
    runs = np.ones((len(ids), 2), np.uint64)
    runs[:, 0] = ids
    return runs


def unshared(owner: int, prompt_tokens: int, id_tokens: int = ID_TOKENS) -> Runs:
    """Blocks that nobody else has; `owner` is a number of its own, from 1. Raises ValueError past MAX_OWNERS."""
    if owner >= MAX_OWNERS:
        raise ValueError(f"more than {MAX_OWNERS} requests")
    return np.array([[owner * NAMESPACE, -(-prompt_tokens // id_tokens)]], np.uint64)


def linked(jobs: Sequence[tuple[float, Job]]) -> Job:
    """A session: (think ms before it, job) pairs, tied in order. Returns the first; its own think time is dropped."""
    for (_, job), (think_ms, following) in pairwise(jobs):
        job.then, job.think_ms = following, think_ms
    return jobs[0][1]
