"""The few families of series that are wanted of an engine's page, found where they stood on its last page.

A page of 54 KB holds some ten wanted families, and their places move by no more than digits from page to page. So the
last place is looked at first and the page is searched only where they are not there; a family that reads as before is
the same object as before, so that nobody need read it again. The text format keeps all lines of a family together:
what is after the first group is not searched.

That a family is not there is believed for as long as the page grows or shrinks by less than its name and the others
have as many lines as before; and anew every `LOOK_AGAIN` pages, whatever else may have hidden it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_SERIES = 4096
"""Series read of one metric; the rest of a longer run is ignored."""
MAX_LOOKALIKES = 256
"""Lines passed over because their metric's name only begins like the wanted one."""
MAX_LINE_BYTES = 16 << 10
MAX_KEPT_BYTES = 16 << 10
"""A longer group is not remembered."""
LOOK_AGAIN = 32
_ENDS = (b"\n", b"")
DRIFT_BYTES = 512
"""How far from its last place a family is looked for before the whole page is searched."""


@dataclass(slots=True)
class _Place:
    """Where a group began and what it said; for one that was not there, how long the page was."""

    at: int
    text: bytes


class Families:
    """Names and groups begin with the newline before them; a group ends before the newline after its last line."""

    def __init__(self) -> None:
        self._places: dict[bytes, _Place] = {}
        self._shift = self._turns = 0
        self._moved = False

    def turn(self, page: bytes, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """The groups of these names, empty for those that are not on this page. `page` begins with a newline."""
        self._turns += 1
        self._shift, self._moved = 0, False
        groups = {name: self._group(page, name) for name in names}
        if self._moved or self._turns % LOOK_AGAIN == 0:
            groups |= {name: self._search(page, name) for name, group in groups.items() if not group}
        return groups

    def _group(self, page: bytes, name: bytes) -> bytes:
        place = self._places.get(name)
        if place is None:
            return self._search(page, name)
        text = place.text
        if not text:
            return b"" if abs(len(page) - place.at) < len(name) else self._search(page, name)
        at = max(0, place.at + self._shift)  # what moved one family moves those after it as far
        if not page.startswith(text, at):
            at = _find(page, name, max(0, at - DRIFT_BYTES), at + DRIFT_BYTES)
        if at < 0 or page.startswith(name, page.rfind(b"\n", max(0, at - MAX_LINE_BYTES), at)):
            self._moved = True
            return self._search(page, name)
        self._shift, place.at = at - place.at, at
        end = at + len(text)
        if page.startswith(text, at) and page[end : end + 1] in _ENDS and not page.startswith(name, end):
            return text
        now = page[at : _end(page, name, at)]
        self._moved |= now.count(b"\n") != text.count(b"\n")
        return self._keep(name, at, now)

    def _search(self, page: bytes, name: bytes) -> bytes:
        at = _find(page, name, 0, len(page))
        return self._keep(name, at, page[at : _end(page, name, at)]) if at >= 0 else self._keep(name, len(page), b"")

    def _keep(self, name: bytes, at: int, text: bytes) -> bytes:
        if len(text) <= MAX_KEPT_BYTES:
            self._places[name] = _Place(at, text)
        else:
            self._places.pop(name, None)
        return text


def _begins(page: bytes, name: bytes, at: int) -> bool:
    """Whether a line of this family begins there."""
    after = at + len(name)
    return at >= 0 and page.startswith(name, at) and page[after : after + 1] in (b"{", b" ", b"\t")


def _find(page: bytes, name: bytes, start: int, end: int) -> int:
    """Where the first line of this family begins, from `start` up to `end`; -1 where there is none."""
    at = page.find(name, start, end + len(name))
    for _ in range(MAX_LOOKALIKES):
        if at < 0 or _begins(page, name, at):
            return at
        at = page.find(name, at + len(name), end + len(name))
    return -1


def _end(page: bytes, name: bytes, at: int) -> int:
    """Where the group that begins at `at` ends; a line that is too long ends it before."""
    for _ in range(MAX_SERIES):
        if not _begins(page, name, at):
            break
        end = page.find(b"\n", at + 1, at + MAX_LINE_BYTES)
        if end < 0:
            return len(page) if len(page) <= at + MAX_LINE_BYTES else at
        at = end
    return at
