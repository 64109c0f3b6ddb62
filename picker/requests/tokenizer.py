"""Token ids as the engine's own tokenizer gives them, with the ids of text seen before kept.

Text is cut in front of special tokens, such as `<|im_start|>`: tokenizers split there before anything else, so each
piece has the same ids wherever it stands (the first piece apart, which may get a word mark in front). A conversation's
next turn therefore tokenises only its new pieces.
"""

import json
import re
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder
from xxhash import xxh3_128_digest

Ids = NDArray[np.uint32]
MAX_PIECES = 65_536
MAX_CACHED_TOKENS = 16_000_000
"""Token ids kept at most, 4 bytes each."""
_NO_IDS: Ids = np.empty(0, dtype=np.uint32)


class TokenCache:
    """Ids by key; entries unused since the hand last passed go first (CLOCK). Reads take no lock and move nothing."""

    def __init__(self, pieces: int = MAX_PIECES, tokens: int = MAX_CACHED_TOKENS) -> None:
        self._pieces, self._limit = pieces, tokens
        self._entries: dict[bytes, list[Any]] = {}
        self._tokens = 0
        self._writing = threading.Lock()

    def get(self, key: bytes) -> Ids | None:
        """The ids kept under `key`, or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry[1] = True
        ids: Ids = entry[0]
        return ids

    def put(self, key: bytes, ids: Ids) -> None:
        """Keep these ids. Worker threads meet here, hence the lock; the loop only reads unless it tokenised itself."""
        with self._writing:
            if key in self._entries or len(ids) > self._limit:
                return
            self._entries[key] = [ids, False]
            self._tokens += len(ids)
            while len(self._entries) > self._pieces or self._tokens > self._limit:
                self._evict()

    def _evict(self) -> None:
        oldest = next(iter(self._entries))
        entry = self._entries.pop(oldest)
        if entry[1]:
            self._entries[oldest] = [entry[0], False]
        else:
            self._tokens -= len(entry[0])

    def __len__(self) -> int:
        return len(self._entries)


class Tokenizer:
    """`tokenizer.json` of a folder, completed by its tokenizer_config.json.

    Raises FileNotFoundError where there is no tokenizer.json, ValueError where one of the files cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer.json in {folder}")
        try:
            self._encoder = Encoder.from_file(str(path))
        except Exception as error:
            # The library raises bare Exception for any fault of the file.
            raise ValueError(f"{path}: {error}") from error
        self._encoder.no_truncation()
        self._encoder.no_padding()
        config = read_config(folder)
        _add_tokens(self._encoder, config.get("added_tokens_decoder"))
        self._head, self._tail = _wrapping(self._encoder, config)
        self._cut = _cut_pattern(self._encoder)
        self._cache = TokenCache()

    def ids(self, text: str, *, add_special_tokens: bool) -> Ids:
        """Ids of `text`, shape (tokens,). `add_special_tokens` puts what the model wants around a bare prompt."""
        ids = self._all_ids(self._pieces(text))
        return np.concatenate([self._head, ids, self._tail]) if add_special_tokens else ids

    def settled_ids(self, text: str) -> Ids:
        """The ids of `text` that no text behind it can change."""
        return self._all_ids(self._pieces(text)[:-1])

    def _all_ids(self, pieces: list[str]) -> Ids:
        ids = [self._piece_ids(piece, first=number == 0) for number, piece in enumerate(pieces)]
        return np.concatenate(ids) if ids else _NO_IDS

    def _pieces(self, text: str) -> list[str]:
        if self._cut is None:
            return [text]
        cuts = [match.start() for match in self._cut.finditer(text) if match.lastgroup == "safe"]
        bounds = [0, *(cut for cut in cuts if cut), len(text)]
        return [text[start:end] for start, end in pairwise(bounds)]

    def _piece_ids(self, piece: str, *, first: bool) -> Ids:
        key = xxh3_128_digest((b"\1" if first else b"\0") + piece.encode("utf-8", "surrogatepass"))
        ids = self._cache.get(key)
        if ids is None:
            ids = np.array(self._encoder.encode(piece, add_special_tokens=False).ids, dtype=np.uint32)
            self._cache.put(key, ids)
        return ids


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, or {} where there is none. Raises ValueError for one that is no JSON object."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not a JSON object")
    return config


def _add_tokens(encoder: Encoder, declared: Any) -> None:
    """Tokens that only tokenizer_config.json declares."""
    known = {token.content for token in encoder.get_added_tokens_decoder().values()}
    for entry in declared.values() if isinstance(declared, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and entry["content"] not in known:
            flags = {name: bool(entry.get(name)) for name in ("single_word", "lstrip", "rstrip", "normalized")}
            token = AddedToken(entry["content"], special=bool(entry.get("special")), **flags)
            encoder.add_special_tokens([token]) if entry.get("special") else encoder.add_tokens([token])


def _wrapping(encoder: Encoder, config: dict[str, Any]) -> tuple[Ids, Ids]:
    """Ids put before and after a bare prompt, by the post-processor or by add_bos_token and add_eos_token."""
    bare = encoder.encode("a", add_special_tokens=False).ids
    full = encoder.encode("a", add_special_tokens=True).ids
    start = next((at for at in range(len(full)) if full[at : at + len(bare)] == bare), 0)
    head, tail = full[:start], full[start + len(bare) :]
    for option, name, ends in (("add_bos_token", "bos_token", head), ("add_eos_token", "eos_token", tail)):
        token = encoder.token_to_id(token_text(config.get(name)))
        if config.get(option) is True and token is not None and token not in ends:
            ends.append(token)
        elif config.get(option) is False and token in ends:
            ends.remove(token)
    return np.array(head, dtype=np.uint32), np.array(tail, dtype=np.uint32)


def token_text(value: Any) -> str:
    """A special token of tokenizer_config.json, given as text or as an object with `content`, or ""."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _cut_pattern(encoder: Encoder) -> re.Pattern[str] | None:
    """Finds added tokens as the tokenizer does (leftmost, longest); group "safe" are those to cut in front of.

    Tokens that take blanks with them are found but not cut at. None where words decide what is a token.
    """
    tokens = [token for token in encoder.get_added_tokens_decoder().values() if not token.normalized and token.content]
    if not tokens or any(token.single_word for token in tokens):
        return None
    tokens.sort(key=lambda token: len(token.content), reverse=True)
    # Python's alternation takes the first branch that fits, so longer tokens must come first whatever their group.
    safe = [token for token in tokens if not token.lstrip and not token.rstrip]
    other = [token for token in tokens if token.lstrip or token.rstrip]
    if not safe:
        return None
    if any(inner.content in outer.content for outer in other for inner in safe) or any(
        inner.content in outer.content for outer in safe for inner in other
    ):
        return None
    branches = ["(?P<safe>" + "|".join(re.escape(token.content) for token in safe) + ")"]
    branches += [re.escape(token.content) for token in other]
    return re.compile("|".join(branches))
