"""What a client of an OpenAI API sends and sees."""

import itertools
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_run, _numbers = uuid.uuid4().hex[:8], itertools.count()


def new_words(count: int = 60) -> str:
    """A prompt that nobody sent before, not in an earlier run either."""
    return f"{_run}-{next(_numbers)} " + "tell me more about the sea and the ships on it " * (count // 11 + 1)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The OpenAI error object, or what an engine has in its place. Raises where the body is no JSON object."""
        told = self.json()
        error: dict[str, Any] = told.get("error", told)
        return error

    @property
    def events(self) -> list[Any]:
        """The events of a stream, without the last word."""
        assert self.headers["content-type"].startswith("text/event-stream")
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]", "the stream was cut off"
        return [json.loads(line) for line in lines[:-1]]

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts of either form."""
        if self.headers["content-type"].startswith("text/event-stream"):
            return next(event["usage"] for event in reversed(self.events) if event.get("usage"))
        usage: dict[str, Any] = self.json()["usage"]
        return usage


@dataclass(slots=True)
class Client:
    """A client that asks for one model."""

    session: aiohttp.ClientSession
    model: str

    def chat(self, words: str = "", **more: Any) -> dict[str, Any]:
        """A chat body; every one has a prompt of its own unless `words` are given."""
        messages = [{"role": "user", "content": words or new_words()}]
        return {"model": self.model, "messages": messages, "max_tokens": 8, **more}

    def streamed(self, words: str = "", **more: Any) -> dict[str, Any]:
        return self.chat(words, stream=True, stream_options={"include_usage": True}, **more)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with self.session.post(path, data=data, headers=sent) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Answer:
        async with self.session.get(path) as response:
            return Answer(response.status, response.headers, await response.read())
