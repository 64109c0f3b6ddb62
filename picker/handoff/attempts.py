"""How often a request is tried, where, and when it is to blame for the engines that die under it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Break = Literal["refused", "overloaded", "failed", "cut", "silent"]
"""No connection; a 503; another 5xx or an engine's own word of its end; the connection broke; nothing came in time."""

_DEADLY = frozenset(("failed", "cut", "silent"))


@dataclass(frozen=True, slots=True)
class FailoverSettings:
    """`deaths`: engines that may break under one request. `tries`: engines asked in all, `within_s` after a break.

    `silence_s`: between bytes of a stream; `first_s`: before the first, where queues and long prompts take their time.
    """

    on: bool = True
    deaths: int = 2
    tries: int = 4
    within_s: float = 15.0
    silence_s: float = 20.0
    first_s: float = 300.0
    connect_s: float = 2.0


@dataclass(slots=True)
class Attempts:
    """Of one request. `own` is the engine beside this proxy."""

    settings: FailoverSettings
    own: str
    deaths: int = 0
    tried: list[str] = field(default_factory=list)
    _since: float | None = None

    def broke(self, engine: str, how: Break, peers: Sequence[str], now: float) -> str | None:
        """The engine to try next: peers in their order, then this proxy's own, each once; None where it ends."""
        self.tried.append(engine)
        self.deaths += how in _DEADLY
        if self._since is None:
            self._since = now
        late = now - self._since > self.settings.within_s
        if not self.settings.on or self.poison or late or len(self.tried) >= self.settings.tries:
            return None
        return next((name for name in (*peers, self.own) if name not in self.tried), None)

    def running(self) -> None:
        """The engine that was tried answers: a break from here on is a new one, and engines tried may be back."""
        self._since = None
        self.tried.clear()

    @property
    def poison(self) -> bool:
        return self.deaths >= self.settings.deaths
