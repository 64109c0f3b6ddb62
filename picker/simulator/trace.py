"""Request traces in Mooncake's form: who asks when, how long, and which prefix blocks are shared.

Output lengths and future arrivals are the replay's knowledge; a router under test must never see them ahead of time.
"""

import random
import zlib
from bisect import bisect_left
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Annotated

import msgspec

BLOCK_TOKENS = 512
"""Tokens that one hash id of the trace stands for."""
ROUNDED_MS = 3000.0
"""Published times are rounded down to this grid."""
MAX_TRACE_BYTES = 1 << 30
_GZIP_MAGIC = b"\x1f\x8b"

# 64 words of three letters: with its space, four characters, one toy token and about one token of a real tokenizer.
_WORD_LIST = (
    "ace act age aid air arm art ash bag bay bed big bit box bus car cat cow cup day dog dry ear egg end "
    "eye fan far fly fog fun gas hat hen ice ink jam job key kit lab leg map mix mud net oak oil old pan "
    "pen pin red run sea sky sun tea tin toy van wax web zoo"
)
WORDS = tuple(_WORD_LIST.split())


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request: arrival in ms from the trace's start, lengths in tokens, one hash id per 512-token prefix block.

    An equal hash id means an equal prefix up to the end of that block; the last block may be partly filled.
    """

    index: int
    at_ms: float
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...]


class _Row(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0)]
    input_length: Annotated[int, msgspec.Meta(ge=1)]
    output_length: Annotated[int, msgspec.Meta(ge=1)]
    hash_ids: list[Annotated[int, msgspec.Meta(ge=0)]]


def parse_trace(data: bytes, *, seed: int = 0, rounded_ms: float = ROUNDED_MS) -> list[TraceRequest]:
    """Requests of a jsonl or gzipped jsonl trace (told apart by content), in order of time.

    Times are spread evenly at random inside their rounding interval of `rounded_ms`, seeded; 0 leaves them.
    Raises ValueError, with the line, for anything that is not such a trace, or more than 1 GiB of it.
    """
    text = inflate(data)
    decoder = msgspec.json.Decoder(_Row)
    spread = random.Random(seed)
    requests = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"trace line {number}: {error}") from None
        if len(row.hash_ids) != -(-row.input_length // BLOCK_TOKENS):
            raise ValueError(f"trace line {number}: {len(row.hash_ids)} hash ids for {row.input_length} tokens")
        at = row.timestamp + spread.uniform(0, rounded_ms)
        requests.append(TraceRequest(number - 1, at, row.input_length, row.output_length, tuple(row.hash_ids)))
    return sorted(requests, key=lambda request: request.at_ms)


def inflate(data: bytes) -> bytes:
    """`data`, unpacked if it is gzip. Raises ValueError for a broken file, or one that inflates to more than 1 GiB."""
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        text = inflater.decompress(data, MAX_TRACE_BYTES)
    except zlib.error as error:
        raise ValueError(f"trace: broken gzip: {error}") from None
    if not inflater.eof:
        raise ValueError("trace: gzip is cut short or inflates to more than 1 GiB")
    return text


def load_shipped(*, seed: int = 0) -> list[TraceRequest]:
    """The 600 requests that ship with the package (data/README.md)."""
    return parse_trace(
        (files("picker.simulator") / "data" / "mooncake_conversation_600.jsonl.gz").read_bytes(), seed=seed
    )


def cut(requests: list[TraceRequest], *, from_ms: float = 0.0, count: int | None = None) -> list[TraceRequest]:
    """`count` consecutive requests from `from_ms` on, times counted from there. Input and output in order of time."""
    first = bisect_left(requests, from_ms, key=lambda request: request.at_ms)
    return [
        TraceRequest(r.index, r.at_ms - from_ms, r.input_tokens, r.output_tokens, r.hash_ids)
        for r in islice(requests, first, None if count is None else first + count)
    ]


def laps(requests: list[TraceRequest], count: int) -> list[TraceRequest]:
    """`count` requests: the trace again and again, each time with prompts that share nothing with those before.

    Raises ValueError for an empty trace.
    """
    if not requests:
        raise ValueError("an empty trace has no laps")
    lap_ms = requests[-1].at_ms * len(requests) / max(len(requests) - 1, 1)
    fresh = 1 + max((hash_id for request in requests for hash_id in request.hash_ids), default=0)
    found = []
    for i in range(count):
        lap, r = i // len(requests), requests[i % len(requests)]
        hash_ids = tuple(hash_id + lap * fresh for hash_id in r.hash_ids)
        found.append(TraceRequest(i, r.at_ms + lap * lap_ms, r.input_tokens, r.output_tokens, hash_ids))
    return found


def block_hashes(request: TraceRequest, block_size: int) -> tuple[int, ...]:
    """Identity of the prompt's full engine blocks, for engines that are driven without text.

    `block_size` must divide 512.
    """
    per_id, rest = divmod(BLOCK_TOKENS, block_size)
    if rest:
        raise ValueError(f"a block size of {block_size} does not divide {BLOCK_TOKENS}")
    blocks = (hash_id * per_id + part for hash_id in request.hash_ids for part in range(per_id))
    return tuple(islice(blocks, request.input_tokens // block_size))


def scaled(tokens: int, scale: float) -> int:
    """A length in tokens under `scale`; at least 1."""
    return max(1, round(tokens * scale))


def prompt_text(request: TraceRequest, *, chars_per_token: int = 4, scale: float = 1.0) -> str:
    """A prompt of `input_tokens` x `scale` tokens, `chars_per_token` characters each, as three-letter words.

    Equal leading hash ids give equal leading text; different ids part within the first three words of their block
    (ids below 262,144 and at least twelve characters a block). Raises ValueError when scale or width is not positive.
    """
    if chars_per_token < 1 or not scale > 0:
        raise ValueError("chars_per_token and scale must be positive")
    width = scaled(BLOCK_TOKENS, scale) * chars_per_token
    length = scaled(request.input_tokens, scale) * chars_per_token
    return "".join(_block_text(hash_id, width) for hash_id in request.hash_ids)[:length]


def _block_text(hash_id: int, width: int) -> str:
    digits = [WORDS[hash_id >> shift & 63] for shift in (0, 6, 12)]
    words = digits + random.Random(hash_id).choices(WORDS, k=-(-width // 4))
    return (" ".join(words) + " ")[:width]
