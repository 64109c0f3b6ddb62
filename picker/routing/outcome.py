"""What became of a request, whichever way the proxy told us."""

import enum
from dataclasses import dataclass

BROKEN_STATUS = frozenset((500, 502, 503))
"""An endpoint that answers so cannot serve. 501 is about what was asked for, and 504 about how long it took: both are
the client's choice."""


class Fault(enum.Enum):
    """What speaks against the endpoint that had the request last."""

    UNREACHED = "unreached"
    """No connection came about, or, where another endpoint served instead, the answer was 503."""
    BROKEN = "broken"
    """It answered with BROKEN_STATUS, or broke off."""


@dataclass(slots=True)
class Outcome:
    """The facts of one answer. None where the response path has not (yet) told.

    Times are seconds from the request's arrival; `status` is the HTTP status, 0 when the answer never began. `fault` is
    None, too, where the client or the proxy itself gave up.
    """

    status: int = 0
    served: str | None = None
    streamed: bool = False
    ttft_s: float | None = None
    duration_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    complete: bool = False
    fault: Fault | None = None

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds per output token after the first; None for fewer than two tokens or unknown times."""
        if self.ttft_s is None or self.duration_s is None or self.completion_tokens is None or not self.streamed:
            return None
        if self.completion_tokens < 2:
            return None
        return max(0.0, self.duration_s - self.ttft_s) / (self.completion_tokens - 1)

    def absorb(self, other: "Outcome") -> None:
        """Fill what is still unknown here from `other`; what is known stays."""
        self.status = self.status or other.status
        self.served = self.served or other.served
        self.streamed = self.streamed or other.streamed
        self.complete = self.complete or other.complete
        for name in ("ttft_s", "duration_s", "prompt_tokens", "cached_tokens", "completion_tokens", "fault"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(other, name))
