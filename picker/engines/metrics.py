"""An engine's /metrics page as numbers: bytes in, `EngineSample` out.

A page of some 500 lines holds about ten that matter here, and a pool is scraped hundreds of times a second, so the
wanted families are found by `bytes.find` (`Families`) and the rest is never decoded: prometheus_client's parser costs
100 times as much on the whole page, and 4 times as much on the wanted lines alone.

How several series of one metric become one number (a port may serve several data-parallel engines):
counts and block numbers are summed, usage and block size are the largest, ranks that work on the same requests
(tensor, pipeline and expert parallel) count once. A label set that is repeated keeps its last value.
Readings that cannot be (NaN, infinite, negative, absurd) are dropped, as if the series were not there.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from picker.engines.families import Families
from picker.pool.view import EngineKind

MAX_TEXT_BYTES = 8 << 20
MAX_REQUESTS = 1e6
MAX_ADAPTERS = 1024

_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_SAME_REQUESTS = (b"tp_rank", b"pp_rank", b"moe_ep_rank")


class BadMetrics(Exception):
    """The page is too large, or is not one of this kind of engine."""


@dataclass(frozen=True, slots=True)
class LoraState:
    """LoRA adapters on the engine by name, and how many fit in one batch."""

    max_adapters: int
    running: tuple[str, ...]
    waiting: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One reading. None: the page did not say. Requests are counts, usage is 0..1, block size is in tokens.

    The four last are running totals in tokens since the engine started: prompt tokens looked up in the prefix cache and
    found there, prompt tokens processed, tokens generated.
    """

    running: float | None = None
    waiting: float | None = None
    kv_usage: float | None = None
    block_size: float | None = None
    num_blocks: float | None = None
    lora: LoraState | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class _Where:
    """Where a number stands: metric names, newest first, and the label that selects a series or holds the number."""

    names: tuple[bytes, ...]
    select: bytes = b""
    label: bytes = b""


@dataclass(frozen=True, slots=True)
class _Field:
    combine: Callable[[Iterable[float]], float]
    largest: float
    smallest: float = 0.0


_FIELDS = {
    "running": _Field(sum, MAX_REQUESTS),
    "waiting": _Field(sum, MAX_REQUESTS),
    "kv_usage": _Field(max, 1.05),
    "block_size": _Field(max, 1 << 20, smallest=1),
    "num_blocks": _Field(sum, 1e12, smallest=1),
    "prefix_queries": _Field(sum, 1e18),
    "prefix_hits": _Field(sum, 1e18),
    "prompt_tokens": _Field(sum, 1e18),
    "generation_tokens": _Field(sum, 1e18),
}


def _at(*names: str, select: str = "", label: str = "") -> _Where:
    return _Where(tuple(b"\n" + name.encode() for name in names), select.encode(), label.encode())


_TRITON_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
_PAGES: dict[EngineKind, dict[str, _Where]] = {
    "vllm": {
        "running": _at("vllm:num_requests_running"),
        "waiting": _at("vllm:num_requests_waiting"),
        "kv_usage": _at("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "block_size": _at("vllm:cache_config_info", label="block_size"),
        "num_blocks": _at("vllm:cache_config_info", label="num_gpu_blocks"),
        "prefix_queries": _at("vllm:prefix_cache_queries_total"),
        "prefix_hits": _at("vllm:prefix_cache_hits_total"),
        "prompt_tokens": _at("vllm:prompt_tokens_total"),
        "generation_tokens": _at("vllm:generation_tokens_total"),
    },
    "sglang": {
        "running": _at("sglang:num_running_reqs"),
        "waiting": _at("sglang:num_queue_reqs"),
        "kv_usage": _at("sglang:token_usage"),
        "block_size": _at("sglang:cache_config_info", label="page_size"),
        "num_blocks": _at("sglang:cache_config_info", label="num_pages"),
        "prefix_queries": _at("sglang:prompt_tokens_total"),
        "prefix_hits": _at("sglang:cached_tokens_total"),
        "prompt_tokens": _at("sglang:prompt_tokens_total"),
        "generation_tokens": _at("sglang:generation_tokens_total"),
    },
    "trtllm-serve": {
        "running": _at("trtllm_num_requests_running"),
        "waiting": _at("trtllm_num_requests_waiting"),
        "kv_usage": _at("trtllm_kv_cache_utilization"),
        "block_size": _at("trtllm_kv_cache_tokens_per_block"),
        "num_blocks": _at("trtllm_kv_cache_max_blocks"),
    },
    "triton-tensorrt-llm": {
        "running": _at("nv_trt_llm_request_metrics", select='request_type="scheduled"'),
        "waiting": _at("nv_trt_llm_request_metrics", select='request_type="waiting"'),
        "kv_usage": _at(_TRITON_BLOCKS, select='kv_cache_block_type="fraction"'),
        "block_size": _at(_TRITON_BLOCKS, select='kv_cache_block_type="tokens_per"'),
        "num_blocks": _at(_TRITON_BLOCKS, select='kv_cache_block_type="max"'),
    },
    # The field reads nv_inference_exec_count as "running", but it counts executions since the start and never falls.
    "triton": {"waiting": _at("nv_inference_pending_request_count")},
}
_LORA = b"\nvllm:lora_requests_info"


def parse(text: bytes, kind: EngineKind) -> EngineSample:
    """Read one page. Raises BadMetrics when it is over `MAX_TEXT_BYTES` or has no count of requests at all.

    >>> parse(b'vllm:num_requests_running{engine="0"} 3\\nvllm:num_requests_running{engine="1"} 1', "vllm").running
    4.0
    """
    return PageReader(kind).read(text)


class PageReader:
    """The pages of one engine, one after the other: says what `parse` says, and reads only what changed."""

    def __init__(self, kind: EngineKind) -> None:
        self._kind = kind
        self._families = Families()
        self._names = tuple(dict.fromkeys(name for where in _PAGES[kind].values() for name in where.names))
        if kind == "vllm":
            self._names += (_LORA,)
        self._groups: dict[bytes, bytes] = {}
        self._numbers: dict[str, float | None] = {}
        self._lora: LoraState | None = None
        self._sample: EngineSample | None = None

    def read(self, text: bytes) -> EngineSample:
        """As `parse`."""
        if len(text) > MAX_TEXT_BYTES:
            raise BadMetrics(f"page of {len(text)} bytes is over the limit of {MAX_TEXT_BYTES}")
        groups, before = self._families.turn(b"\n" + text, self._names), self._groups
        changed = {name for name, group in groups.items() if group is not before.get(name)}
        if changed or self._sample is None:
            self._groups, self._sample = groups, None
            try:
                self._sample = self._changed(changed)
            except BadMetrics:
                self._families = Families()  # it was another page: the next one is searched whole
                raise
        return self._sample

    def _changed(self, changed: set[bytes]) -> EngineSample:
        """Raises BadMetrics."""
        series: dict[bytes, dict[bytes, float]] = {}
        for name, where in _PAGES[self._kind].items():
            if not changed.isdisjoint(where.names):
                self._numbers[name] = _number(self._groups, where, _FIELDS[name], series)
        if _LORA in changed:
            self._lora = _lora(self._groups[_LORA])
        read = {name: value for name, value in self._numbers.items() if value is not None}
        if "kv_usage" in read:
            read["kv_usage"] = min(read["kv_usage"], 1.0)  # some engines count a little over when full
        if "running" not in read and "waiting" not in read:
            raise BadMetrics(f"no count of running or waiting requests: not a page of {self._kind}")
        return EngineSample(**read, lora=self._lora)


def _number(
    groups: Mapping[bytes, bytes], where: _Where, field: _Field, seen: dict[bytes, dict[bytes, float]]
) -> float | None:
    for name in where.names:
        if name not in seen:
            seen[name] = dict(_series(groups[name], name))
        values = [
            (labels, _label_number(labels, where.label) if where.label else value)
            for labels, value in seen[name].items()
            if where.select in labels
        ]
        kept = [(labels, value) for labels, value in values if field.smallest <= value <= field.largest]
        if kept:
            return field.combine(value for _, value in kept) if len(kept) == 1 else field.combine(_by_engine(kept))
    return None


def _by_engine(values: list[tuple[bytes, float]]) -> Iterable[float]:
    """One value per set of requests: the largest over the ranks that share them."""
    if not any(rank in labels for labels, _ in values for rank in _SAME_REQUESTS):
        return [value for _, value in values]
    engines: dict[tuple[tuple[bytes, bytes], ...], float] = {}
    for labels, value in values:
        key = tuple(sorted(pair for pair in _LABEL.findall(labels) if pair[0] not in _SAME_REQUESTS))
        engines[key] = max(value, engines.get(key, 0.0))
    return engines.values()


def _series(group: bytes, name: bytes) -> Iterator[tuple[bytes, float]]:
    """(label text, value) of each line of a group."""
    for line in group.split(b"\n")[1:]:
        labels, _, rest = line[len(name) - 1 :].rpartition(b"}")
        yield labels, _float(rest.split(None, 1)[0]) if rest.strip() else math.nan


def _label_number(labels: bytes, name: bytes) -> float:
    for key, value in _LABEL.findall(labels):
        if key == name:
            return _float(value)
    return math.nan


def _float(text: bytes) -> float:
    """NaN for what is no number: out of every range, so dropped."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _lora(group: bytes) -> LoraState | None:
    """The newest series: its value is the time of writing, and old label sets stay on the page."""
    newest = max(_series(group, _LORA), key=lambda s: s[1] if math.isfinite(s[1]) else -math.inf, default=None)
    if newest is None:
        return None
    labels = dict(_LABEL.findall(newest[0]))
    limit = labels.get(b"max_lora", b"")
    return LoraState(
        max_adapters=int(limit) if limit.isdigit() and len(limit) < 7 else 0,
        running=_adapters(labels.get(b"running_lora_adapters", b"")),
        waiting=_adapters(labels.get(b"waiting_lora_adapters", b"")),
    )


def _adapters(listed: bytes) -> tuple[str, ...]:
    names = listed.decode("utf-8", "replace").split(",")[:MAX_ADAPTERS]
    return tuple(name.strip() for name in names if name.strip())
