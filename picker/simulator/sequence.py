"""What goes into an engine, what comes out of each step, and a request on its way between."""

from collections.abc import Sequence as Items
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from picker.simulator.blocks import Blocks, Hashes

UNSEEN = 1 << 63
"""Generated blocks without a given hash have numbers from here on."""
_MOST_BLOCKS = 1 << 28
"""Of one sequence, so that those numbers differ."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The engine's own flags, vLLM's names. Raises ValueError where vLLM would refuse to start."""

    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int | None = None
    """Longest prompt plus output, in tokens; None is the whole KV cache."""
    max_waiting: int = 1 << 20
    """Requests that may wait; the next one is refused."""

    def __post_init__(self) -> None:
        if min(self.block_size, self.max_num_seqs, self.max_waiting) < 1:
            raise ValueError("block_size, max_num_seqs and max_waiting must be at least 1")
        if self.max_model_len is not None and self.max_model_len < 2:
            raise ValueError("max_model_len must be at least 2")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs")


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What an engine needs to know of a request: lengths in tokens and the identity of its blocks.

    `hashes[i]` identifies tokens 0..(i+1) x block_size together and covers the prompt's full blocks, or more where the
    output is known as well; generated blocks beyond get hashes of their own. `tokens` and `salt` are carried, not read.
    """

    id: str
    prompt_tokens: int
    output_tokens: int
    hashes: Items[int] | Hashes = ()
    tokens: Items[int] = ()
    salt: str = ""


class Refused(Exception):
    """The request cannot be taken: "too-long" for ever, "queue-full" for now, "duplicate" id, "empty" lengths."""

    def __init__(self, reason: Literal["too-long", "queue-full", "duplicate", "empty"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sequence:
    """A request inside the engine. Read by callers, written by the engine alone."""

    __slots__ = (
        "blocks",
        "cached_tokens",
        "computed",
        "end",
        "hashes",
        "held",
        "known",
        "live",
        "named",
        "preemptions",
        "request",
        "stored",
    )

    def __init__(self, request: EngineRequest, block_size: int, number: int) -> None:
        """`number` is one that no other sequence has, of this engine or of those that it may move to."""
        self.request = request
        self.known = request.prompt_tokens
        """Tokens that exist: the prompt and what was generated."""
        self.end = request.prompt_tokens + request.output_tokens
        """`known` when it is finished."""
        self.computed = 0
        """Tokens whose KV is in the cache, or will be when the running step ends."""
        self.stored = 0
        """Tokens in full blocks that are matchable."""
        most = -(-self.end // block_size)
        self.blocks: Blocks = np.empty(most, np.int32)
        """Its KV blocks, in the first `held` places."""
        self.held = 0
        given = np.asarray(request.hashes, np.uint64)
        self.named = len(given) > request.prompt_tokens // block_size
        """Whether generated blocks have given hashes, which later prompts may share."""
        unseen = np.arange(len(given), most, dtype=np.uint64) + np.uint64(UNSEEN + number * _MOST_BLOCKS)
        self.hashes: Hashes = np.concatenate((given, unseen))
        self.cached_tokens: int | None = None
        """Prefix hit of the first admission, in tokens; None before it."""
        self.preemptions = 0
        self.live = True
        """False once finished or aborted."""

    def fork(self) -> "Sequence":
        """The same request for a fork of its engine."""
        other = copy(self)
        other.blocks = self.blocks.copy()
        return other

    def room(self, count: int) -> Blocks:
        """Places of so many more blocks, for the caller to fill."""
        start, self.held = self.held, self.held + count
        return self.blocks[start : self.held]

    def rest(self, block_size: int) -> EngineRequest:
        """What is left of it, as a request to another engine: all tokens that exist are the prompt, whose full blocks
        keep their identity."""
        asked = self.request
        hashes = self.hashes[: max(len(asked.hashes), self.known // block_size)]
        return EngineRequest(asked.id, self.known, self.end - self.known, hashes, salt=asked.salt)

    @property
    def generated(self) -> int:
        return self.known - self.request.prompt_tokens

    @property
    def finished(self) -> bool:
        return self.known >= self.end


class Stored(NamedTuple):
    """Consecutive blocks of one request became matchable; `first` is the index of the first in its chain."""

    hashes: Hashes
    parent: int | None
    request: EngineRequest
    first: int


class Removed(NamedTuple):
    """Blocks were handed out again: their content is gone."""

    hashes: Hashes


class Cleared(NamedTuple):
    """The whole prefix cache was dropped."""


KvEvent = Stored | Removed | Cleared


class Step(NamedTuple):
    """One step as scheduled."""

    duration_ms: float
    tokens: int
    """Tokens computed, at most max_num_batched_tokens."""
    decodes: int
    prefills: tuple[tuple[Sequence, int], ...]
    """Sequences that prefill (or recompute), and how many tokens each."""
    emitting: tuple[Sequence, ...]
    """Sequences that get one token when the step ends, unless aborted meanwhile."""
    preempted: tuple[Sequence, ...]
    events: tuple[KvEvent, ...]


@dataclass(slots=True)
class Counters:
    """Totals since start, in tokens unless named otherwise."""

    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    computed_tokens: int = 0
    """Tokens computed in all steps, recomputation included."""
    preemptions: int = 0
    finished_requests: int = 0
    aborted_requests: int = 0
