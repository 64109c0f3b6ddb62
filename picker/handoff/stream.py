"""One client's stream, whichever engines write it.

    feed      bytes of the engine that has the request -> events for the client
    cut       that engine is left: what came of an unfinished event or character is forgotten
    restart   nothing was said yet: the next engine is asked the same
    go_on     else it is asked for the rest, on the token ids, and its chunks are written as the first engine's

Tokens count as delivered with the text that they end. A token that only began a character is kept back until the
character is whole: an engine that is given half of one at the end of a prompt repeats the prompt's text (vLLM 0.32).
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from picker.handoff import logprobs
from picker.handoff.asked import Asked
from picker.handoff.sse import DONE, Events, event
from picker.handoff.stops import StopText

MOST_KEPT_BACK = 8
"""Events without text, before they go out all the same."""
_CONTEXT = 32
_REPLACEMENT = "\ufffd"


class Stays(Exception):
    """This stream cannot go on elsewhere; the message says in a word why."""


@dataclass(frozen=True, slots=True)
class _Said:
    """A chunk's tokens, their text, the event, and where the next token's text begins by its log-probabilities."""

    ids: list[int]
    text: str
    data: bytes
    end: int


class Stream:
    """`tokens` are those delivered, of all engines. `begun` once the client was told of one, `over` once it has its
    finish_reason, `done` once it has the last event. `failure` is what an engine said of its own failing, which the
    client was not told."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.prompt: list[int] = []
        self.tokens: list[int] = []
        self.done = False
        self.failure: str | None = None
        self.over = False
        self.begun = False
        self._events = Events()
        self._kept_back: list[_Said] = []
        self._text: list[str] = []
        self._identity: dict[str, Any] = {}
        self._parsed = ""
        """What an engine's own parser has made of the text at last, if it has."""
        self._clean = True
        """Text and tokens delivered end at the same place, for certain."""
        self._again = 0
        """Tokens that the next engine makes anew, after the client heard of them without text."""
        self._metered, self._counted = asked.wants_usage, False
        """The client gets its usage, whether it asked or the engine tells everybody; it has got it."""
        self._since = 0
        """The tokens before are a parser's; the text delivered begins with this one."""
        self._offset = self._base_offset = 0
        self._rest: StopText | None = None

    # -- an engine's answer -----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[bytes]:
        """Events for the client, in order. Raises ValueError for what is no engine's stream."""
        out: list[bytes] = []
        for whole in self._events.feed(data):
            if self.done or self.failure is not None:
                break
            out += self._finished() if whole == b"[DONE]" else self._chunk(_decoded(whole))
        return out

    def _chunk(self, chunk: dict[str, Any]) -> list[bytes]:
        if "error" in chunk:
            return self._error(chunk)
        try:
            return self._said(chunk)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"a chunk of an unknown form: {type(error).__name__}") from None

    def _said(self, chunk: dict[str, Any]) -> list[bytes]:
        opening = not self._identity
        if opening:
            self._identity = {name: chunk[name] for name in ("id", "object", "created", "model")}
        self._learn_prompt(chunk)
        self._metered = self._metered or bool(chunk.get("usage"))
        choices = chunk["choices"]
        if not choices:
            self._counted = True
            return [*self._flushed(), event(self._enveloped(chunk, [], len(self.tokens)))]
        choice = choices[0]
        ids: list[int] = choice.get("token_ids") or []
        if not opening and not ids and (choice.get("delta") or {}).get("role"):
            return []
        text, stopped = self._words(choice), None
        if self._rest is not None:
            text, stopped = self._rest.push(text, finished=bool(choice.get("finish_reason")))
        choice = self._as_first(choice, text, stopped)
        chunk = self._enveloped(chunk, [choice], len(self.tokens) + self._waiting + len(ids))
        hidden = choice.get("delta") == {} and not choice.get("finish_reason") and not choice.get("logprobs")
        data = event(chunk) if self.asked.wants_ids or not hidden else b""
        if self._again and ids:
            data = data if text or choice.get("finish_reason") else b""
            self._again = max(0, self._again - len(ids))
        said = _Said(ids, text, data, _end(choice.get("logprobs")))
        self.over = bool(choice.get("finish_reason"))
        out = self._delivered(said, over=self._is_parsed(choice, ids) or self.over)
        return out if stopped is None else out + self.closing()

    def _delivered(self, said: "_Said", *, over: bool) -> list[bytes]:
        """The event, now or once the text of its tokens is whole."""
        self._kept_back.append(said)
        begun = bool(said.ids) and not said.text and not over and not self.asked.stops
        if begun and len(self._kept_back) <= MOST_KEPT_BACK:
            return []
        if said.ids:
            self._clean = len(said.ids) == 1 and bool(said.text) and not self.asked.stops
        return self._flushed()

    def _flushed(self) -> list[bytes]:
        out = [said.data for said in self._kept_back if said.data]
        for said in self._kept_back:
            self.tokens += said.ids
            self.begun = self.begun or bool(said.data and (said.ids or said.text))
            self._offset = said.end or self._offset
            if said.text:
                self._text.append(said.text)
        self._kept_back.clear()
        return out

    def closing(self) -> list[bytes]:
        """What is left to say once it is `over`, where the engine does not: it was left, or knows of no stop string."""
        usage = [event({**self._identity, "choices": [], "usage": self._usage({}, len(self.tokens))})]
        return [*(usage if self._metered and not self._counted else []), *self._finished()]

    def _finished(self) -> list[bytes]:
        self.done = True
        return [*self._flushed(), DONE]

    def _error(self, chunk: dict[str, Any]) -> list[bytes]:
        error = chunk["error"]
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and code < 500:
            return [*self._flushed(), event(chunk)]
        self.failure = "the engine failed"
        return []

    # -- from one engine to the next --------------------------------------------------------------------------------

    @property
    def stays(self) -> str | None:
        """In a word why it cannot go on elsewhere now."""
        if self.over or not self.begun:
            return "over" if self.over else None
        if not self.prompt:
            return "no-token-ids"
        if self.asked.stops and len(self.tokens) < self.asked.least:
            # Of several tokens in one chunk nobody can say from which on a stop string counts.
            return "min-tokens"
        return self._parsed or None

    @property
    def clean(self) -> bool:
        """`go_on` needs no text."""
        return self._clean

    def cut(self) -> None:
        """Leave the engine."""
        self._events, self.failure = Events(), None
        self._kept_back.clear()

    def restart(self) -> None:
        """The next engine is asked the same, as nothing was delivered but, perhaps, the role."""
        self._rest, self._parsed = None, ""
        self.tokens.clear()

    def retreat(self) -> None:
        """Forget the last token, which only began a character. Raises Stays where the client was told of it."""
        if self.asked.wants_ids or self.asked.top is not None or not self.tokens:
            raise Stays("half-character")
        self.tokens.pop()
        self._again += 1

    def told(self) -> tuple[list[int], list[int]]:
        """Some tokens of the context before the text delivered, and those of the text."""
        before = [*self.prompt, *self.tokens[: self._since]]
        return before[-_CONTEXT:], self.tokens[self._since :]

    def agrees(self, text: str) -> bool:
        """`text`, which an engine made of the tokens `told` a while ago, and what was delivered are one text."""
        said = "".join(self._text)
        return text.startswith(said) or said.startswith(text.rstrip(_REPLACEMENT))

    def go_on(self, text: str | None = None) -> None:
        """From here on an engine answers that was asked for the rest. `text` is that of the tokens `told`, which may be
        more than was delivered; needed unless `clean`. Raises Stays."""
        if self.stays:
            raise Stays(self.stays)
        if self.asked.limit is not None and len(self.tokens) >= self.asked.limit:
            raise Stays("over")
        said = "".join(self._text)
        text = said if text is None else text
        if text.endswith(_REPLACEMENT) or not text.startswith(said):
            raise Stays("text")
        self._base_offset = self._offset
        self._rest = StopText(self.asked.stops, include=self._includes_stop, text=text, sent=len(said))

    def rest(self, room: int) -> dict[str, Any]:
        """The body for the next engine after `go_on`."""
        return self.asked.rest(self.prompt, self.tokens, room)

    def giving_up(self, message: str) -> list[bytes]:
        """The client is told that it ends here."""
        self.done = True
        return broken(message)

    # -- chunks as the first engine would write them ----------------------------------------------------------------

    def _as_first(self, choice: dict[str, Any], text: str, stopped: str | None) -> dict[str, Any]:
        choice = dict(choice)
        if not self.asked.wants_ids:
            choice |= {name: None for name in ("prompt_token_ids", "token_ids") if name in choice}
        if self._rest is None:
            return choice
        if stopped is not None:
            choice |= {"finish_reason": "stop", "stop_reason": stopped}
        if "prompt_token_ids" in choice:
            choice["prompt_token_ids"] = None
        found = choice.get("logprobs")
        if self.asked.kind == "completion":
            if found:
                places = [place + self._base_offset for place in found["text_offset"]]
                choice["logprobs"] = {**found, "text_offset": places}
            return choice | {"text": text}
        written = {"index": 0, "delta": {"content": text}, "logprobs": logprobs.of_chat(found, self.asked.top or 0)}
        written["finish_reason"] = choice.get("finish_reason")
        if written["finish_reason"]:
            written["stop_reason"] = choice.get("stop_reason")
        return written | ({"token_ids": choice["token_ids"]} if "token_ids" in choice else {})

    def _enveloped(self, chunk: dict[str, Any], choices: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        chunk = {**chunk, **self._identity, "choices": choices}
        if not self.asked.wants_ids and "prompt_token_ids" in chunk:
            chunk["prompt_token_ids"] = None
        if self._rest is not None and chunk.get("usage"):
            chunk["usage"] = self._usage(chunk["usage"], tokens)
        return chunk

    def _usage(self, usage: dict[str, Any], tokens: int) -> dict[str, Any]:
        """Of the whole. What the first engine had cached is not known any more."""
        whole = {"prompt_tokens": len(self.prompt), "total_tokens": len(self.prompt) + tokens}
        details = {"prompt_tokens_details": None} if "prompt_tokens_details" in usage else {}
        return {**usage, **whole, "completion_tokens": tokens, **details}

    # -- what a chunk tells -----------------------------------------------------------------------------------------

    def _learn_prompt(self, chunk: dict[str, Any]) -> None:
        if self._rest is None:
            ids = chunk.get("prompt_token_ids") or (chunk["choices"] or [{}])[0].get("prompt_token_ids")
            self.prompt = ids or self.prompt

    def _words(self, choice: dict[str, Any]) -> str:
        return choice.get("text") or (choice.get("delta") or {}).get("content") or ""

    def _is_parsed(self, choice: dict[str, Any], ids: list[int]) -> bool:
        """Whether a parser of the engine has its hand in it. After reasoning, plain text is the engine's text again;
        stop strings are not, as they were looked for in all of it."""
        delta = choice.get("delta") or {}
        if delta.get("tool_calls") or delta.get("function_call"):
            self._parsed = "tools"
        elif delta.get("reasoning") or delta.get("reasoning_content") or (ids and choice.get("delta") == {}):
            self._parsed = "reasoning"
            return True
        elif delta.get("content") and self._parsed == "reasoning" and not self.asked.stops:
            self._parsed, self._since = "", len(self.tokens) + self._waiting
        elif self._words(choice) and not ids and not choice.get("finish_reason"):
            self._parsed = "no-token-ids"
        return self._parsed == "tools"

    @property
    def _waiting(self) -> int:
        return sum(len(said.ids) for said in self._kept_back)

    @property
    def _includes_stop(self) -> bool:
        return bool(self.asked.body.get("include_stop_str_in_output"))


def broken(message: str) -> list[bytes]:
    """The events that end a stream which nobody can finish."""
    return [event({"error": {"message": message, "type": "EngineFailure", "param": None, "code": 502}}), DONE]


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"an event that is no JSON object: {type(error).__name__}") from None


def _end(found: dict[str, Any] | None) -> int:
    """Where the next token's text would begin, by a completion's log-probabilities."""
    if not found or not found.get("text_offset"):
        return 0
    end: int = found["text_offset"][-1] + len(found["tokens"][-1])
    return end
