"""Every filter, scorer and picker of llm-d-router that is understood here. A new one is one line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from picker.engines.rows import Column
from picker.policies.composed import affinity, cold_turns, labels, saturation, scorers, sessions
from picker.policies.composed.look import Filter, Look, Scorer
from picker.policies.strict import NoParams, read_strictly

P = TypeVar("P", bound=msgspec.Struct)
Made = TypeVar("Made", covariant=True)


@dataclass(frozen=True, slots=True)
class Plugin(Generic[P, Made]):
    """Makes one plugin: `params` are its parameters, `build` takes them and the randomness it may use."""

    params: type[P]
    build: Callable[[P, np.random.Generator], Made]

    def __call__(self, params: Mapping[str, object], rng: np.random.Generator) -> Made:
        """A fresh plugin from outside parameter names. Raises BadSettings, naming every wrong one."""
        return self.build(read_strictly(self.params, params), rng)


def _pure(params: type[P], score: Callable[[P, Look], Column]) -> Plugin[P, Scorer]:
    return Plugin(params, lambda given, rng: partial(score, given))


SCORERS: dict[str, Plugin[Any, Scorer]] = {
    "queue-scorer": _pure(NoParams, scorers.queue),
    "running-requests-size-scorer": _pure(NoParams, scorers.running_requests),
    "kv-cache-utilization-scorer": _pure(NoParams, scorers.kv_cache),
    "load-aware-scorer": _pure(scorers.LoadAware, scorers.load_aware),
    "active-request-scorer": _pure(scorers.ActiveRequest, scorers.active_requests),
    "token-load-scorer": _pure(scorers.TokenLoad, scorers.token_load),
    "prefix-cache-scorer": _pure(scorers.PrefixCache, scorers.prefix_cache),
    "precise-prefix-cache-scorer": _pure(NoParams, scorers.precise_prefix_cache),
    "lora-affinity-scorer": _pure(NoParams, scorers.lora_affinity),
    "no-hit-lru-scorer": Plugin(cold_turns.NoHitLru, lambda p, rng: cold_turns.ColdTurns(p)),
    "session-affinity-scorer": Plugin(sessions.SessionScorer, lambda p, rng: sessions.SessionWish(p)),
}

DETECTORS: dict[str, Plugin[Any, saturation.Detector]] = {
    "utilization-detector": Plugin(saturation.Utilization, lambda p, rng: saturation.ScrapedLoad(p)),
    "concurrency-detector": Plugin(saturation.Concurrency, lambda p, rng: saturation.OwnLoad(p)),
}

FILTERS: dict[str, Plugin[Any, Filter]] = {
    "label-selector-filter": Plugin(labels.LabelSelector, lambda p, rng: labels.Selects(p)),
    "by-label": Plugin(labels.ByLabel, lambda p, rng: labels.SelectsOne(p)),
    "decode-filter": Plugin(NoParams, lambda p, rng: labels.SelectsOne(labels.serves("decode"))),
    "prefill-filter": Plugin(NoParams, lambda p, rng: labels.SelectsOne(labels.serves("prefill"))),
    "encode-filter": Plugin(NoParams, lambda p, rng: labels.SelectsOne(labels.serves("encode"))),
    "prefix-cache-affinity-filter": Plugin(affinity.PrefixAffinity, affinity.PrefixHolders),
    "session-affinity-filter": Plugin(sessions.SessionFilter, lambda p, rng: sessions.SessionRule(p)),
    **DETECTORS,
}
