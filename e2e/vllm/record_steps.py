"""What vLLM's scheduler does with given arrivals: `VENV/bin/python record_steps.py MODEL FILES STEPS`.

FILES is a JSON list; each has `engine` (vLLM's engine arguments) and `arrivals` in order, with `id`, `step` (it comes
before that step, from 0), `tokens` (ids), `output` (tokens), and optionally `follows` (an earlier id, whose prompt and
output so far go before `tokens`) and `abort` (the step before which it is given up). Time is counted in steps, so no
clock matters. STEPS gets, for each, `requests` (id to prompt, output, and cached tokens as answered) and `steps`, null
where nothing ran.

The engine runs in this process, on vLLM's own code: its scheduler and event publisher are listened to from outside.
"""

import json
import sys
from pathlib import Path
from typing import Any

from vllm import EngineArgs, LLMEngine, RequestOutput, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler


class Ear:
    """Hears what the scheduler decides and what its KV blocks announce."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._schedule = scheduler, scheduler.schedule
        self.step: dict[str, Any] | None = None
        self.events: list[list[Any]] = []
        scheduler.schedule = self._scheduled
        scheduler.kv_event_publisher.publish = self._published

    def _scheduled(self, *args: Any) -> SchedulerOutput:
        decided = self._schedule(*args)
        if decided.total_num_scheduled_tokens:
            cached = decided.scheduled_cached_reqs
            before = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
            self.step = {
                "tokens": {_name(i): tokens for i, tokens in decided.num_scheduled_tokens.items()},
                "hits": {_name(new.req_id): new.num_computed_tokens for new in decided.scheduled_new_reqs}
                | {_name(i): before[i] for i in cached.req_ids if i in cached.resumed_req_ids},
                "preempted": sorted(map(_name, decided.preempted_req_ids or ())),
                "running": [_name(request.request_id) for request in self._scheduler.running],
                "waiting": [_name(request.request_id) for request in self._scheduler.waiting],
                "free_blocks": self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
            }
        return decided

    def _published(self, batch: Any) -> None:
        for event in batch.events:
            name = type(event).__name__
            if name == "BlockStored":
                self.events.append(["stored", event.parent_block_hash, *event.block_hashes])
            elif name == "BlockRemoved":
                self.events += [["removed", block] for block in event.block_hashes]

    def heard(self) -> dict[str, Any] | None:
        """What the step just run did; None when there was nothing to run."""
        step, events, self.step, self.events = self.step, self.events, None, []
        return None if step is None else step | {"events": events}


def _name(request_id: str) -> str:
    """vLLM puts a random tail behind the id that it was given."""
    return request_id.rpartition("-")[0]


def play(model: str, file: dict[str, Any]) -> dict[str, Any]:
    """Run one file on an engine of its own until the last request is gone."""
    events = {"enable_kv_cache_events": True, "publisher": "null"}
    engine = LLMEngine.from_engine_args(EngineArgs(model=model, kv_events_config=events, **file["engine"]))
    ear, arrivals = Ear(engine.engine_core.engine_core.scheduler), file["arrivals"]
    requests: dict[str, dict[str, Any]] = {}
    steps: list[dict[str, Any] | None] = []
    last = max(max(arrival["step"], arrival.get("abort", 0)) for arrival in arrivals)
    while len(steps) <= last or engine.has_unfinished_requests():
        for arrival in arrivals:
            if arrival["step"] == len(steps):
                before = requests[arrival["follows"]] if "follows" in arrival else {"prompt": [], "output": []}
                prompt = before["prompt"] + before["output"] + arrival["tokens"]
                requests[arrival["id"]] = {"prompt": prompt, "output": [], "cached": None}
                params = SamplingParams(temperature=0, max_tokens=arrival["output"], ignore_eos=True, detokenize=False)
                engine.add_request(arrival["id"], {"prompt_token_ids": prompt}, params)
        for arrival in arrivals:
            if arrival.get("abort") == len(steps):
                engine.abort_request([arrival["id"]])
        for output in engine.step() if engine.has_unfinished_requests() else ():
            assert isinstance(output, RequestOutput)
            request = requests[output.request_id]
            request["output"], request["cached"] = list(output.outputs[0].token_ids), output.num_cached_tokens
        steps.append(ear.heard())
    engine.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    return {"requests": requests, "steps": steps}


if __name__ == "__main__":
    files = json.loads(Path(sys.argv[2]).read_text())
    Path(sys.argv[3]).write_text(json.dumps([play(sys.argv[1], file) for file in files]))
