"""How long clients waited while their stream changed engines."""

from collections import deque

_KEPT = 512


class Gaps:
    """The last gaps, in seconds."""

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=_KEPT)

    def add(self, seconds: float) -> None:
        self._kept.append(seconds)

    def quantile(self, share: float) -> float | None:
        """The least gap that `share` of those kept do not exceed; None without any.

        >>> gaps = Gaps()
        >>> for gap in (0.3, 0.1, 0.2): gaps.add(gap)
        >>> gaps.quantile(0.5)
        0.2
        """
        ordered = sorted(self._kept)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
