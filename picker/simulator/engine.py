"""One vLLM engine (v1 scheduler) as a pure step machine: what runs in the next step, and how long that takes.

    engine.submit(request)            # at any time
    step = engine.schedule()          # decides the step that begins now; None when there is nothing to do
    ...                               # step.duration_ms pass, on whatever clock the caller keeps
    emitted = engine.complete(step)   # the step has ended: its tokens exist, finished sequences are gone

A step is scheduled as vLLM does it: running sequences first, in the order of admission, then waiting ones first come
first served, all under one token budget. There is no prefill phase: each sequence just has tokens known and tokens
computed, and catches up as far as the budget goes. Because the budget covers at least one token per running sequence,
every decode moves in every step, and at most one sequence (the last admitted) is ever part way through its prefill.
"""

from collections import OrderedDict
from copy import copy
from itertools import groupby

import numpy as np

from picker.simulator.blocks import BlockPool, Blocks
from picker.simulator.kv_account import KvAccount
from picker.simulator.sequence import (
    Counters,
    EngineRequest,
    Limits,
    Refused,
    Removed,
    Sequence,
    Step,
)
from picker.simulator.steptime import StepTime


class Engine:
    """The scheduler, its KV blocks and its step time."""

    def __init__(
        self,
        step_time: StepTime,
        limits: Limits | None = None,
        *,
        kv_tokens: int | None = None,
        events: bool = False,
        first: int = 0,
    ) -> None:
        """`kv_tokens` replaces the row's KV capacity. KV events are recorded only when `events` is set. Sequences are
        numbered from `first`; engines between which they move need numbers of their own."""
        self.step_time = step_time
        self.limits = limits or Limits()
        kv_tokens = step_time.kv_tokens if kv_tokens is None else kv_tokens
        self.pool = BlockPool(kv_tokens // self.limits.block_size)
        self.max_model_len = min(self.limits.max_model_len or 1 << 62, self.pool.size * self.limits.block_size)
        self.counters = Counters()
        self.running: list[Sequence] = []
        self.waiting: OrderedDict[str, Sequence] = OrderedDict()
        self._by_id: dict[str, Sequence] = {}
        self._kv = KvAccount(self.pool, self.limits.block_size, events=events)
        self._submitted = first

    def fork(self) -> tuple["Engine", dict[str, Sequence]]:
        """An engine that would go on as this one, and its sequences by id, in place of this one's. It records no KV
        events and starts its counters anew."""
        other = copy(self)
        other.pool, other.counters = self.pool.fork(), Counters()
        other._by_id = {key: sequence.fork() for key, sequence in self._by_id.items()}
        other.running = [other._by_id[sequence.request.id] for sequence in self.running]
        other.waiting = OrderedDict((key, other._by_id[key]) for key in self.waiting)
        other._kv = KvAccount(other.pool, self.limits.block_size, events=False)
        return other, other._by_id

    @property
    def kv_usage(self) -> float:
        """Share of KV blocks in use, 0..1."""
        return 1.0 - self.pool.free / self.pool.size

    def usage_after(self, steps: int) -> float:
        """`kv_usage` once so many of `decode_steps` are played."""
        missing = [self._kv.missing(sequence, sequence.computed + steps) for sequence in self.running]
        return 1.0 - (self.pool.free - sum(count for count in missing if count > 0)) / self.pool.size

    def find(self, request_id: str) -> Sequence | None:
        """Running or waiting here."""
        return self._by_id.get(request_id)

    def owed(self) -> list[tuple[Sequence, int]]:
        """Sequences that have tokens to compute before their next one, and how many."""
        running = [(s, s.known - s.computed) for s in self.running if s.known - s.computed > 1 or not s.generated]
        size = self.limits.block_size
        hits = (len(self.pool.match(s.hashes, (s.known - 1) // size)) for s in self.waiting.values())
        return running + [(s, s.known - size * hit) for s, hit in zip(self.waiting.values(), hits, strict=True)]

    def submit(self, request: EngineRequest, *, ahead: bool = False) -> Sequence:
        """Queue a request, at the end or `ahead` of all that wait. Raises Refused."""
        if request.prompt_tokens < 1 or request.output_tokens < 1:
            raise Refused("empty", "a request needs at least one prompt token and one output token")
        if request.prompt_tokens + request.output_tokens > self.max_model_len:
            raise Refused(
                "too-long",
                f"This model's maximum context length is {self.max_model_len} tokens. However, you requested "
                f"{request.output_tokens} output tokens and your prompt contains {request.prompt_tokens} input tokens.",
            )
        if request.id in self._by_id:
            raise Refused("duplicate", f"request {request.id!r} is in flight already")
        if len(self.waiting) >= self.limits.max_waiting:
            raise Refused("queue-full", f"{len(self.waiting)} requests are waiting already")
        sequence = self._by_id[request.id] = self.waiting[request.id] = Sequence(
            request, self.limits.block_size, self._submitted
        )
        self._submitted += 1
        if ahead:
            self.waiting.move_to_end(request.id, last=False)
        return sequence

    def abort(self, request_id: str) -> bool:
        """Drop a request wherever it is, at once; its blocks stay matchable. False when it is not here (any more)."""
        sequence = self._by_id.get(request_id)
        if sequence is None:
            return False
        if self.waiting.pop(request_id, None) is None:
            self.running.remove(sequence)
        self._leave(sequence)
        self.counters.aborted_requests += 1
        return True

    def withdraw(self, request_id: str) -> Sequence | None:
        """As `abort`: the sequence, whose `rest` may go on elsewhere, without the token of the step in progress."""
        sequence = self._by_id.get(request_id)
        return sequence if self.abort(request_id) else None

    def bring(self, request: EngineRequest, tokens: int) -> bool:
        """`KvAccount.bring`; its events go out with the next step."""
        return self._kv.bring(request, tokens)

    def reset_prefix_cache(self) -> bool:
        """Forget all cached blocks; refused (False) while any is in use. The event goes out with the next step."""
        return self._kv.clear()

    def schedule(self) -> Step | None:
        """Begin the next step; None when no request is here. The caller completes it before it schedules again."""
        budget = self.limits.max_num_batched_tokens
        size = self.limits.block_size
        context = longest = decodes = 0
        emitting: list[Sequence] = []
        prefills: list[tuple[Sequence, int]] = []
        preempted: list[Sequence] = []

        # Preemption pops from the list's end while this loop walks it: the walk then just ends earlier.
        for sequence in self.running:
            before = sequence.computed
            new = sequence.known - before
            if new > budget:
                new = budget
                if not new:
                    break
            if before + new > sequence.held * size and not self._grow(sequence, new, preempted):
                break
            if new == 1 and sequence.known > sequence.request.prompt_tokens:
                decodes += 1
                context += before
                if before > longest:
                    longest = before
            else:
                prefills.append((sequence, new))
            budget -= new
            sequence.computed = before + new
            if before + new - sequence.stored >= size:
                self._kv.store(sequence)
            if before + new == sequence.known:
                emitting.append(sequence)

        # After a preemption memory is short: nobody is admitted in the same step.
        while self.waiting and budget and not preempted and len(self.running) < self.limits.max_num_seqs:
            sequence = next(iter(self.waiting.values()))
            new = self._admit(sequence, budget)
            if not new:
                break
            prefills.append((sequence, new))
            budget -= new
            if sequence.computed == sequence.known:
                emitting.append(sequence)

        tokens = self.limits.max_num_batched_tokens - budget
        if not tokens:
            return None
        work, history = 0.0, 0
        for sequence, new in prefills:
            before = sequence.computed - new
            work += new * (before + new / 2)
            history += before
        self.counters.steps += 1
        self.counters.computed_tokens += tokens
        duration = self.step_time.ms(tokens, work, context, decodes, history, longest)
        return Step(
            duration, tokens, decodes, tuple(prefills), tuple(emitting), tuple(preempted), self._kv.take_events()
        )

    def complete(self, step: Step) -> list[Sequence]:
        """End the step. Gives each sequence that got a token in it; those with `finished` set have left the engine."""
        emitted = [sequence for sequence in step.emitting if sequence.live]
        for sequence in emitted:
            sequence.known += 1
            if sequence.known >= sequence.end:
                self.running.remove(sequence)
                self._leave(sequence)
                self.counters.finished_requests += 1
        self.counters.generation_tokens += len(emitted)
        return emitted

    def decode_steps(self) -> int:
        """How many of the next steps are sure to be alike: one token for each running sequence, nobody admitted,
        finished (before the last of them) or preempted, and no block stored that a prompt could name. 0 when the next
        step has to be scheduled."""
        steps = 1 << 30
        for sequence in self.running:
            left = sequence.end - sequence.known
            if sequence.known - sequence.computed != 1 or sequence.known == sequence.request.prompt_tokens:
                return 0
            if sequence.named:
                return 0
            if left < steps:
                steps = left
        if not self.running or self._admissible():
            return 0
        while steps and sum(self._kv.missing(s, s.computed + steps) for s in self.running) > self.pool.free:
            steps //= 2
        return steps

    def decode_ms(self) -> tuple[float, float]:
        """Duration of the next step of `decode_steps`, and by how much each one is longer than the one before."""
        contexts = [sequence.computed for sequence in self.running]
        count, total, longest = len(contexts), sum(contexts), max(contexts)
        first = self.step_time.ms(count, 0.0, total, count, 0, longest)
        return first, self.step_time.ms(count, 0.0, total + count, count, 0, longest + 1) - first

    def decode(self, steps: int) -> tuple[list[Sequence], list[tuple[int, Removed]]]:
        """Run that many steps (at most `decode_steps`) at once; gives who finished in the last one, and what was
        evicted, each time with the number of the step, from 1.

        The result is that of as many calls of `schedule` and `complete`, but for who has which of the blocks taken.
        """
        size = self.limits.block_size
        growing: list[tuple[Sequence, int]] = []
        taken_at: list[int] = []
        for sequence in self.running:
            before, held = sequence.computed, sequence.held
            sequence.computed += steps
            sequence.known += steps
            if sequence.computed > held * size:
                in_steps = range(held * size - before + 1, steps + 1, size)
                growing.append((sequence, len(in_steps)))
                taken_at += in_steps
        evicted = self._share_out(growing, taken_at) if growing else []
        for sequence in self.running:
            if sequence.computed - sequence.stored >= size:
                self._kv.store(sequence, told=False)
        finished = [sequence for sequence in self.running if sequence.known >= sequence.end]
        for sequence in finished:
            self.running.remove(sequence)
            self._leave(sequence)
        tokens = steps * (len(self.running) + len(finished))
        self.counters.steps += steps
        self.counters.computed_tokens += tokens
        self.counters.generation_tokens += tokens
        self.counters.finished_requests += len(finished)
        return finished, evicted

    def _share_out(self, growing: list[tuple[Sequence, int]], taken_at: list[int]) -> list[tuple[int, Removed]]:
        """Give each of these so many blocks, taken in these steps; gives what was evicted, by step."""
        blocks = np.empty(len(taken_at), np.int32)
        gone, positions = self.pool.take(blocks)
        start = 0
        for sequence, count in growing:
            sequence.room(count)[:] = blocks[start : start + count]
            start += count
        if not self._kv.told or not len(gone):
            return []
        taken_at.sort()
        steps = [taken_at[position] for position in positions.tolist()]
        evicted, start = [], 0
        for step, same in groupby(steps):
            end = start + sum(1 for _ in same)
            evicted.append((step, Removed(gone[start:end])))
            start = end
        return evicted

    def _admissible(self) -> bool:
        """Whether the first waiting sequence could begin beside the running ones, each of which takes one token."""
        if not self.waiting or len(self.running) >= self.limits.max_num_seqs:
            return False
        budget = self.limits.max_num_batched_tokens - len(self.running)
        return budget > 0 and self._fits(next(iter(self.waiting.values())), budget) is not None

    def _grow(self, sequence: Sequence, new: int, preempted: list[Sequence]) -> bool:
        """Blocks for `new` more tokens of a running sequence, at the price of the last admitted ones; False when it
        had to give way itself."""
        need = self._kv.missing(sequence, sequence.computed + new)
        while need > self.pool.free:
            victim = self.running.pop()
            self._preempt(victim)
            preempted.append(victim)
            if victim is sequence:
                return False
        self._kv.take(sequence, need)
        return True

    def _admit(self, sequence: Sequence, budget: int) -> int:
        """Move the first waiting sequence to the running ones; the tokens it computes now, 0 when no room."""
        fitting = self._fits(sequence, budget)
        if fitting is None:
            return 0
        hits, new, need = fitting
        cached = len(hits) * self.limits.block_size
        self.pool.claim(hits)
        sequence.room(len(hits))[:] = hits
        self._kv.take(sequence, need)
        sequence.stored = cached
        sequence.computed = cached + new
        self._kv.store(sequence)
        del self.waiting[sequence.request.id]
        self.running.append(sequence)
        if sequence.cached_tokens is None:
            sequence.cached_tokens = cached
            self.counters.prompt_tokens += sequence.known
            self.counters.prefix_queries += sequence.known
            self.counters.prefix_hits += cached
        return new

    def _fits(self, sequence: Sequence, budget: int) -> tuple[Blocks, int, int] | None:
        """Its cached blocks, the tokens it would compute and the blocks these need; None while there is no room."""
        size = self.limits.block_size
        # The last token is always computed: its logits are the first output.
        hits = self.pool.match(sequence.hashes, (sequence.known - 1) // size)
        cached = len(hits) * size
        new = min(sequence.known - cached, budget)
        # Room for all that it has to compute, not for this chunk alone: the chunks behind it would preempt or wait.
        if -(-sequence.known // size) - len(hits) + self.pool.unused(hits) > self.pool.free:
            return None
        return hits, new, -(-(cached + new) // size) - len(hits)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue, to be recomputed (from what of it is still cached then)."""
        self._kv.release(sequence)
        sequence.preemptions += 1
        self.counters.preemptions += 1
        self.waiting[sequence.request.id] = sequence
        self.waiting.move_to_end(sequence.request.id, last=False)

    def _leave(self, sequence: Sequence) -> None:
        sequence.live = False
        self._kv.release(sequence)
        del self._by_id[sequence.request.id]
