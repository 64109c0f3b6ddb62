"""Stop strings over text of more than one engine, by vLLM's rules.

While no stop string was met, one character less than the longest is held back, since it may begin one; of several met
at once that counts which is complete first. Text that an earlier engine held back is here from the start.
"""

from collections.abc import Sequence


class StopText:
    """`text` is all there is so far, of which the first `sent` characters went out.

    >>> text = StopText(["END"], include=False, text="on and on E", sent=9)
    >>> text.push("N")
    (' ', None)
    >>> text.push("D of it")
    ('', 'END')
    """

    def __init__(self, stops: Sequence[str], *, include: bool, text: str, sent: int) -> None:
        self._stops, self._include = stops, include
        self._reach = max(map(len, stops), default=1) - 1
        self._held = 0 if include else self._reach
        self._unsent = len(text) - sent
        self._tail = self._kept(text)

    def push(self, new: str, *, finished: bool = False) -> tuple[str, str | None]:
        """What goes out now, and the stop string that ended it all."""
        text = self._tail + new
        start = len(self._tail) - self._unsent
        if new and (met := self._met(text, len(new))) is not None:
            end, stop = met
            return text[start : end if self._include else end - len(stop)], stop
        out = text[start : max(start, len(text) - (0 if finished else self._held))]
        self._unsent = len(text) - start - len(out)
        self._tail = self._kept(text)
        return out, None

    def _kept(self, text: str) -> str:
        return text[max(0, len(text) - max(self._reach, self._unsent)) :]

    def _met(self, text: str, new: int) -> tuple[int, str] | None:
        found = []
        for place, stop in enumerate(self._stops):
            at = text.find(stop, max(0, len(text) - new - len(stop) + 1))
            if at >= 0:
                found.append((at + len(stop), place, stop))
        if not found:
            return None
        end, _, stop = min(found)
        return end, stop
