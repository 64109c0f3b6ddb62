"""Scorers that know one thing each and remember nothing: parameters and a look in, a score per candidate out."""

from typing import Annotated

import msgspec
import numpy as np

from picker.engines.rows import Column
from picker.policies.composed.look import Look
from picker.policies.prefix import matched_share
from picker.policies.strict import NoParams

MATCH_LENGTH_SHAPE = 2.0
"""A prefix of half the length weighs a quarter."""


def least_is_one(load: Column) -> Column:
    """Min-max scaled, shape (N,): the least load 1, the greatest 0; all 1 where all are equal."""
    if not len(load):
        return load
    most, least = load.max(), load.min()
    if most == least:
        return np.ones(len(load))
    scaled: Column = (most - load) / (most - least)
    return scaled


def queue(params: NoParams, look: Look) -> Column:
    """Waiting requests, least is best."""
    return least_is_one(look.rows.waiting)


def running_requests(params: NoParams, look: Look) -> Column:
    """Running requests, least is best."""
    return least_is_one(look.rows.running)


def kv_cache(params: NoParams, look: Look) -> Column:
    """Free share of the KV cache."""
    return 1.0 - look.rows.kv_usage


class LoadAware(msgspec.Struct, frozen=True):
    threshold: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 128


def load_aware(params: LoadAware, look: Look) -> Column:
    """Half for an empty queue, down to nothing for one of `threshold` requests."""
    return 0.5 * (1.0 - np.minimum(look.rows.waiting, params.threshold) / params.threshold)


class ActiveRequest(msgspec.Struct, frozen=True, rename="camel"):
    idle_threshold: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    max_busy_score: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0


def active_requests(params: ActiveRequest, look: Look) -> Column:
    """Own requests in flight against the most that any candidate has; idle ones are all best."""
    count = look.rows.in_flight
    most = max(float(count.max(initial=0.0)), 1.0)
    return np.where(count <= params.idle_threshold, 1.0, (most - count) / most * params.max_busy_score)


class TokenLoad(msgspec.Struct, frozen=True, rename="camel"):
    queue_threshold_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 50)] = 4_194_304


def token_load(params: TokenLoad, look: Look) -> Column:
    """Uncached tokens queued there, with those that this request would add, against a cap."""
    load = look.rows.queued_tokens + look.rows.new_tokens
    return 1.0 - np.minimum(1.0, load / params.queue_threshold_tokens)


class PrefixCache(msgspec.Struct, frozen=True, rename="camel"):
    prefix_length_weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    max_model_len: Annotated[int, msgspec.Meta(ge=1, le=1 << 40)] = 8192


def prefix_cache(params: PrefixCache, look: Look) -> Column:
    """The share of the prompt's blocks that is held, blended with the length of what is held."""
    share = matched_share(look.request, look.rows)
    weight = params.prefix_length_weight
    if not weight:
        return share
    length = np.minimum(1.0, look.rows.hit_tokens / params.max_model_len) ** MATCH_LENGTH_SHAPE
    return (1.0 - weight) * share + weight * length


def precise_prefix_cache(params: NoParams, look: Look) -> Column:
    """Held tokens, min-max scaled over the candidates; equal holders are all best, and without any all are worst."""
    held = look.rows.hit_tokens
    return 1.0 - least_is_one(held) if len(held) and held.max() > held.min() else (held > 0).astype(np.float64)


def lora_affinity(params: NoParams, look: Look) -> Column:
    """Whether the engine has the model's adapter running (1), has a place for one (0.8), has it waiting (0.6)."""
    return np.array([_adapter_score(look, slot) for slot in look.rows.slots.tolist()], dtype=np.float64)


def _adapter_score(look: Look, slot: int) -> float:
    state, model = look.members.lora(slot), look.request.model
    if state is None:
        return 0.0
    if model in state.running:
        return 1.0
    if len(state.running) + len(state.waiting) < state.max_adapters:
        return 0.8
    return 0.6 if model in state.waiting else 0.0
