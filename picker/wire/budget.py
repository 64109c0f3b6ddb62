"""How often a peer may do what costs us work and brings no request nearer to its answer."""


class Budget:
    """A token bucket: full at first with `burst` tokens, refilled with `rate` a second."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._left = burst
        self._at = now

    def spend(self, tokens: float, now: float) -> bool:
        """Take them; False when there are not that many."""
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
        self._left -= tokens
        return self._left >= 0

    def earn(self, tokens: float) -> None:
        """Give some back for what did bring an answer nearer."""
        self._left = min(self._burst, self._left + tokens)
