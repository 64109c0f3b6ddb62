"""A stream of multi-turn requests as a busy chat service sees it: shared system prompts, branches, repeats, tenants."""

import random
from dataclasses import dataclass, field
from typing import Any

from session import Answer
from words import sentence

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MAX_HISTORY_TOKENS = 900
TENANTS = (None, None, None, "tenant-a", "tenant-b")


@dataclass(frozen=True, slots=True)
class Node:
    """A conversation so far, ending with an answer. `tokens`: its ids, as the engine saw and said them."""

    messages: tuple[dict[str, str], ...]
    salt: str | None
    tokens: tuple[int, ...] = ()


@dataclass(slots=True)
class Conversations:
    """Draws requests by `seed`, growing a tree of conversations from the answers."""

    seed: int
    nodes: list[Node] = field(default_factory=list)
    _draw: random.Random = field(init=False)
    _asked: Node = field(init=False)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def next(self) -> tuple[str, dict[str, Any]]:
        """Path and body of the next request."""
        kind = self._draw.choices(("open", "continue", "branch", "repeat", "ids", "text"), (20, 40, 12, 8, 14, 6))[0]
        going = [node for node in self.nodes if len(node.tokens) < MAX_HISTORY_TOKENS]
        if kind == "text":
            return COMPLETIONS, self._limits({"prompt": sentence(60, self._draw.randrange(3)) + sentence(20)})
        if not going or kind == "open":
            system = {"role": "system", "content": sentence(70, self._draw.randrange(3))}
            return self._chat(Node((system,), self._draw.choice(TENANTS)))
        if kind == "continue":
            return self._chat(going[-1 - self._draw.randrange(min(6, len(going)))])
        node = self._draw.choice(going)
        if kind == "branch":
            return self._chat(node)
        if kind == "repeat":
            self._asked = Node(node.messages[:-1], node.salt)
            return CHAT, self._body()
        tail = [self._draw.randrange(100, 40_000) for _ in range(self._draw.choice((1, 31, 32, 33, 120)))]
        body = {"prompt": [*node.tokens, *tail]}
        return COMPLETIONS, self._limits(body | ({"cache_salt": node.salt} if node.salt else {}))

    def answered(self, path: str, answer: Answer) -> None:
        """Let the answer to a chat become part of its conversation."""
        if path == CHAT:
            said = {"role": "assistant", "content": answer.text}
            tokens = answer.prompt + answer.output
            self.nodes.append(Node((*self._asked.messages, said), self._asked.salt, tokens))

    def _chat(self, node: Node) -> tuple[str, dict[str, Any]]:
        question = sentence(self._draw.randrange(3, 60), self._draw.randrange(1000))
        self._asked = Node((*node.messages, {"role": "user", "content": question}), node.salt)
        return CHAT, self._body()

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"messages": list(self._asked.messages)}
        return self._limits(body | ({"cache_salt": self._asked.salt} if self._asked.salt else {}))

    def _limits(self, body: dict[str, Any]) -> dict[str, Any]:
        return body | {"max_tokens": self._draw.choice((1, 8, 24, 48)), "temperature": 0}
