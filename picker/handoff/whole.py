"""An answer in one piece, put together from its stream."""

from typing import Any

import msgspec

from picker.handoff.asked import Kind
from picker.handoff.sse import Events


class Whole:
    """Of a client that asked for no stream; its events come from a `Stream`."""

    def __init__(self, kind: Kind) -> None:
        self._kind, self._events = kind, Events()
        self._head: dict[str, Any] = {}
        self._usage: Any = None
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._prompt: Any = None
        self._ids: list[int] | None = None
        self._logprobs: dict[str, list[Any]] | None = None
        self._ending: dict[str, Any] = {"finish_reason": None, "stop_reason": None}
        self.error: dict[str, Any] | None = None

    def feed(self, data: bytes) -> None:
        for whole in self._events.feed(data):
            if whole != b"[DONE]":
                self._add(msgspec.json.decode(whole))

    def body(self) -> bytes:
        """The body, once the stream is done: of the answer, or of the error that ended it."""
        if self.error is not None:
            return msgspec.json.encode({"error": self.error})
        choice: dict[str, Any] = {"index": 0}
        if self._kind == "chat":
            message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text)}
            message |= {"reasoning": "".join(self._reasoning)} if self._reasoning else {}
            choice |= {"message": message}
        else:
            choice |= {"text": "".join(self._text)}
        choice |= {"logprobs": self._logprobs, **self._ending, "token_ids": self._ids}
        kind = "chat.completion" if self._kind == "chat" else "text_completion"
        head = self._head | {"object": kind}
        if self._kind == "chat":
            head |= {"prompt_token_ids": self._prompt}
        else:
            choice |= {"prompt_token_ids": self._prompt}
        return msgspec.json.encode(head | {"choices": [choice], "usage": self._usage})

    def _add(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            self.error = chunk["error"]
            return
        self._head |= {name: value for name, value in chunk.items() if name not in ("choices", "usage")}
        self._prompt = chunk.get("prompt_token_ids") or self._prompt
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            self._text.append(choice.get("text") or delta.get("content") or "")
            if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):
                self._reasoning.append(reasoning)
            self._prompt = choice.get("prompt_token_ids") or self._prompt
            if choice.get("token_ids") is not None:
                self._ids = (self._ids or []) + choice["token_ids"]
            for name, values in (choice.get("logprobs") or {}).items():
                self._logprobs = self._logprobs or {}
                self._logprobs[name] = self._logprobs.get(name, []) + (values or [])
            if choice.get("finish_reason"):
                self._ending = {name: choice.get(name) for name in self._ending}
