"""From path, headers and body to a `Request`, in two steps: `parse` is cheap, `finish` hashes or tokenises.

Two ways to know a prompt's prefix. Exact: token ids, given by the client or by the model's own template and tokenizer;
keys equal those made from KV events. Text: the prompt's bytes in blocks of a fixed size, so that keys stay comparable
while the learned bytes-per-token ratio moves; only what a block is worth in tokens follows the ratio.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from picker.requests import steering
from picker.requests.blocks import chain_bytes, chain_tokens, root
from picker.requests.bodies import ABSENT, Body, Sampling, TokenIds, bad, decode, kind, positive
from picker.requests.client_ids import client_ids, is_plain
from picker.requests.conversation import NotRenderable
from picker.requests.exact import ExactModel
from picker.requests.headers import hints, model_rewrite
from picker.requests.request import BadRequest, Chain, Hints, Request, TokensSource
from picker.requests.rewriting import Rewriting, Rule
from picker.requests.route import Route, route
from picker.requests.splice import set_model
from picker.requests.steering import SteeringPolicy
from picker.requests.text import prompt_text, without_media
from picker.requests.tokens import DEFAULT_RATIO, Ratios

LEAST_BLOCK_BYTES = 256
MAX_MODEL_NAME = 512
MEDIA_TOKENS = 1000
"""Guess for one inline image or sound: a square image of 800 to 1000 pixels in today's vision models."""
_GLANCE_BYTES = 1024
_SEEN_GLANCES = 65_536


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """`tokenizers`: base model name to the folder of its tokenizer. `adapters`: LoRA name to base model name.

    `slow_bytes`: uncached text above this is tokenised off the event loop. `exact_max_bytes`: longer bodies are
    matched as text.
    """

    max_body_bytes: int = 10 * 1024 * 1024
    steering: SteeringPolicy = "refuse"
    block_tokens: int = 16
    require_model: bool = True
    tokenizers: Mapping[str, Path] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    slow_bytes: int = 2048
    exact_max_bytes: int = 4 * 1024 * 1024


class Draft(Struct, frozen=True, gc=False):
    """A body that was read and may go on, its prompt not yet hashed. `body` is what the engine will get, `model` what
    it asks for, `client_model` what the client asked for."""

    route: Route
    model: str
    hints: Hints
    body: bytes
    changed: bool
    decoded: Body | None = None
    text: bytes = b""
    client_model: str = ""


class _Prompt(Struct, frozen=True, gc=False):
    """What is known of a prompt; the names are those of `Request`."""

    prompt_tokens: float
    tokens_source: TokensSource
    chain: Chain
    block_tokens: float
    prompt_bytes: int = 0
    exact: bool = False


class Reader:
    """Reads requests. `parse` and `is_slow` belong to the event loop; `finish` may run on any thread."""

    def __init__(self, settings: ReaderSettings | None = None, *, draw: Callable[[], float] = random.random) -> None:
        """Loads the tokenizers; raises FileNotFoundError or ValueError for a folder that holds none. `draw` gives
        numbers in [0, 1): which target a rewrite takes."""
        self.settings = settings or ReaderSettings()
        self._draw = draw
        self.follow({}, ())
        self.adapters = dict(self.settings.adapters)
        self.ratios = Ratios()
        self._models = {name: ExactModel(Path(folder)) for name, folder in self.settings.tokenizers.items()}
        self._tokenised: OrderedDict[int, None] = OrderedDict()
        self.set_block_tokens(self.settings.block_tokens)

    def set_block_tokens(self, tokens: int) -> None:
        """The engines' own block size, in tokens."""
        self.block_tokens = max(1, tokens)
        self._text_block_bytes = text_block_bytes(self.block_tokens)

    def follow(self, priorities: Mapping[str, int], rules: Iterable[Rule]) -> None:
        """Read by these priorities of objectives and these rewrite rules (in order of precedence) from now on."""
        self._priorities = priorities
        self._rewriting = Rewriting(rules, self._draw)

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Draft:
        """Read what a pick needs. Raises BadRequest; never for a path that passes through."""
        found, asked = route(path), hints(headers, self._priorities)
        if not found.checked:
            return self._lenient(found, asked, headers, body)
        if len(body) > self.settings.max_body_bytes:
            limit = self.settings.max_body_bytes
            raise bad(f"the request body has {len(body)} bytes; at most {limit} are accepted", code="body_too_large")
        encoding = headers.get("content-encoding")
        if encoding is not None and (encoding := encoding.strip().lower()) not in ("", "identity"):
            raise bad(f"a body in content-encoding {encoding[:40]!r} cannot be read", code="unsupported_encoding")
        decoded = decode(found.shape, body)
        allowed, model = self._allowed(decoded, headers, body, self.settings.steering, supply=True)
        if not model and self.settings.require_model:
            raise bad("'model' is required", param="model", code="missing_required_parameter")
        text = prompt_text(found.shape, decoded)
        if isinstance(decoded, TokenIds) and kind(decoded.token_ids) != b"[":
            raise bad("'token_ids' is required", param="token_ids", code="missing_required_parameter")
        return Draft(found, model, asked, allowed, allowed is not body, decoded, text, decoded.model or "")

    def is_slow(self, draft: Draft) -> bool:
        """Whether `finish` would keep the event loop waiting: much text whose ids are not known yet."""
        if not self._exact_model(draft):
            return len(draft.body) > 1024 * 1024
        unknown = len(draft.text) - _GLANCE_BYTES * self._glance(draft)
        return unknown > self.settings.slow_bytes or len(draft.text) > 64 * self.settings.slow_bytes

    def finish(self, draft: Draft) -> Request:
        """Hash or tokenise the prompt. Raises BadRequest for token ids that are none."""
        decoded, changed = draft.decoded, draft.body if draft.changed else None
        api, model, asked = draft.route.api, draft.model, draft.client_model
        if decoded is None or not draft.route.checked:
            return Request(api=api, model=model, client_model=asked, body=changed, hints=draft.hints)
        prompt = self._prompt(draft, decoded)
        counts: Body | Sampling = decoded.sampling_params if isinstance(decoded, TokenIds) else decoded
        return Request(
            api=api,
            model=model,
            stream=decoded.stream is True,
            prompt_tokens=prompt.prompt_tokens,
            prompt_bytes=prompt.prompt_bytes,
            tokens_source=prompt.tokens_source,
            max_tokens=_most_tokens(decoded.max_completion_tokens, counts.max_tokens, decoded.max_output_tokens),
            n=1 if counts.n is None else min(positive(counts.n) or 1, 1024),
            include_usage=decoded.stream_options is not ABSENT and _wants_usage(bytes(decoded.stream_options)),
            chain=prompt.chain,
            block_tokens=prompt.block_tokens,
            exact=prompt.exact,
            body=changed,
            hints=draft.hints,
            client_model=asked,
        )

    def observe(self, request: Request, prompt_tokens: int) -> None:
        """An answer told how many tokens this request's prompt was: learn the model's bytes per token."""
        self.ratios.observe(request.model, request.prompt_bytes, prompt_tokens)

    def _lenient(self, found: Route, asked: Hints, headers: Mapping[str, str], body: bytes) -> Draft:
        # Nothing here may fail: what cannot be read goes on as it is. Steering fields are taken out even under
        # "refuse", since a refusal is for bodies that we claim to understand.
        if body.lstrip()[:1] != b"{" or len(body) > self.settings.max_body_bytes:
            return Draft(found, "", asked, body, changed=False)
        policy: SteeringPolicy = "pass" if self.settings.steering == "pass" else "strip"
        try:
            decoded = decode(found.shape, body)
            allowed, model = self._allowed(decoded, headers, body, policy, supply=False)
        except BadRequest:
            return Draft(found, "", asked, body, changed=False)
        return Draft(found, model, asked, allowed, allowed is not body, decoded, client_model=decoded.model or "")

    def _allowed(
        self, decoded: Body, headers: Mapping[str, str], body: bytes, policy: SteeringPolicy, *, supply: bool
    ) -> tuple[bytes, str]:
        """The body that may go on (the same object if untouched) and the model it asks for. `supply`: a rule for all
        models may name one where the client did not."""
        model = decoded.model
        if model is not None and not isinstance(model, str):
            raise bad("'model' must be a string", param="model", code="invalid_type")
        if model is not None and len(model) > MAX_MODEL_NAME:
            raise bad(f"'model' is longer than {MAX_MODEL_NAME} characters", param="model", code="invalid_value")
        rewritten = (self._rewriting.target(model or "") if model or supply else "") or model_rewrite(headers)
        try:
            if steering.has_steering(decoded):
                body = steering.apply(policy, body)
            if rewritten and rewritten != model:
                body = set_model(body, rewritten)
        except (ValueError, RecursionError) as error:
            raise bad(f"the request body is not valid JSON: {error}", code="invalid_json") from error
        return body, rewritten or model or ""

    def _exact_model(self, draft: Draft) -> ExactModel | None:
        if not self._models or not draft.route.renderable or len(draft.body) > self.settings.exact_max_bytes:
            return None
        if draft.decoded is None or not draft.text:
            return None
        return self._models.get(self.adapters.get(draft.model, draft.model))

    def _root(self, draft: Draft) -> int:
        return _root(draft.model if draft.model in self.adapters else None, _salt(draft))

    def _prompt(self, draft: Draft, decoded: Body) -> _Prompt:
        ids = client_ids(decoded)
        if ids is not None:
            return self._with_ids(draft, ids)
        model = self._exact_model(draft)
        if model is not None:
            try:
                return self._rendered(draft, model)
            except NotRenderable:
                # The engine will say what is wrong with it, if anything; for a pick the text is enough.
                return self._with_text(draft)
        return self._with_text(draft)

    def _with_ids(self, draft: Draft, prompts: list[list[int]]) -> _Prompt:
        # A batch of prompts is served as so many sequences; the first stands for all in the prefix match.
        first = prompts[0] if is_plain(draft.decoded) else []
        chain = chain_tokens(first, self.block_tokens, self._root(draft))
        return _Prompt(float(sum(map(len, prompts))), "ids", chain, float(self.block_tokens), exact=True)

    def _rendered(self, draft: Draft, model: ExactModel) -> _Prompt:
        prompt = model.prompt(draft.route.api, draft.body)
        self._remember(draft)
        chain = chain_tokens(prompt.ids, self.block_tokens, self._root(draft))
        block_tokens = float(self.block_tokens)
        if prompt.complete:
            return _Prompt(float(len(prompt.ids)), "tokenizer", chain, block_tokens, len(draft.text), exact=True)
        guess = self._with_text(draft)
        return _Prompt(guess.prompt_tokens, guess.tokens_source, chain, block_tokens, guess.prompt_bytes, exact=True)

    def _with_text(self, draft: Draft) -> _Prompt:
        ratio = self.ratios.ratio(draft.model)
        text, more, media = without_media(draft.text)
        size = len(text) + more + round(media * MEDIA_TOKENS * ratio)
        chain = chain_bytes(text, self._text_block_bytes, _root(draft.model, _salt(draft)))
        return _Prompt(max(1.0, size / ratio), "ratio", chain, self._text_block_bytes / ratio, size)

    def _glance(self, draft: Draft) -> int:
        """Leading KiB of this text that were tokenised before."""
        keys = chain_bytes(draft.text, _GLANCE_BYTES, root(draft.model)).tolist()
        return next((number for number, key in enumerate(keys) if key not in self._tokenised), len(keys))

    def _remember(self, draft: Draft) -> None:
        for key in chain_bytes(draft.text, _GLANCE_BYTES, root(draft.model)).tolist():
            self._tokenised[key] = None
        while len(self._tokenised) > _SEEN_GLANCES:
            try:
                self._tokenised.popitem(last=False)
            except KeyError:
                # Another thread took the last one.
                return


def text_block_bytes(block_tokens: int) -> int:
    """Bytes of a block of text, where the engines' own blocks have so many tokens."""
    return max(LEAST_BLOCK_BYTES, round(block_tokens * DEFAULT_RATIO))


def text_block_tokens(block_tokens: int) -> float:
    """What one key of a text chain is worth in tokens, before anything was learned."""
    return text_block_bytes(block_tokens) / DEFAULT_RATIO


def _salt(draft: Draft) -> str | None:
    salt = draft.decoded.cache_salt if draft.decoded is not None else None
    return salt if isinstance(salt, str) and salt else None


# Most prompts of a model share their root. Salts are of any length, and their owners'.
_unsalted = lru_cache(maxsize=256)(root)


def _root(name: str | None, salt: str | None) -> int:
    return _unsalted(name) if salt is None else root(name, salt)


def _most_tokens(*limits: object) -> int | None:
    """The first of them that makes sense."""
    for limit in limits:
        if limit is not None and (tokens := positive(limit)) is not None:
            return tokens
    return None


def _wants_usage(options: bytes) -> bool:
    try:
        decoded = msgspec.json.decode(options)
    except (ValueError, RecursionError):
        return False
    return isinstance(decoded, dict) and decoded.get("include_usage") is True
