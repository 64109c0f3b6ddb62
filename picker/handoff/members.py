"""Who the proxies of a pool are, and one engine's part in the plan, as JSON."""

import math
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from picker.stages.agent_state import Membership
from picker.stages.step_model import StepModel

MAX_BYTES = 1 << 20
MOST = 4096
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
_Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST)]


class Members(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`engines` has all proxies of the pool by name, as base URLs. The rest is the engine's stage (`picker/stages`):
    lengths up to `high` tokens (None: all) belong to it; `firm` is as in `Membership`. Without a `step_model` nothing
    is moved of its own accord."""

    engines: Annotated[dict[Name, Annotated[str, msgspec.Meta(max_length=2048)]], msgspec.Meta(max_length=MOST)] = {}
    high: float | None = None
    firm: bool = False
    stage: _Names = ()
    neighbours: _Names = ()
    following: _Names = ()
    step_model: StepModel | None = None

    def membership(self, own: str) -> Membership:
        """As the agent of the engine `own` sees it; names without a URL are nobody."""
        others = self.engines.keys() - {own}
        stage, neighbours, following = (tuple(name for name in names if name in others) for names in self._parts)
        high = math.inf if self.high is None else self.high
        return Membership(frozenset(others), high, stage, neighbours, following, self.firm)

    def peers(self, own: str) -> list[str]:
        """All others, those of the own stage first."""
        names = dict.fromkeys((*self.stage, *self.following, *self.neighbours, *sorted(self.engines)))
        return [name for name in names if name in self.engines and name != own]

    def hosts(self) -> set[str]:
        return {urlsplit(url).hostname or "" for url in self.engines.values()}

    @property
    def _parts(self) -> tuple[tuple[str, ...], ...]:
        return self.stage, self.neighbours, self.following


def read(data: bytes) -> Members:
    """Raises ValueError for anything else than a membership with plain http(s) base URLs."""
    try:
        members = msgspec.json.decode(data, type=Members)
        for name, url in members.engines.items():
            members.engines[name] = base_url(url)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no membership: {error}") from None
    return members


def base_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError unless it is http(s)://host[:port]."""
    parts = urlsplit(url)
    plain = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or (parts.port or 1) < 1:
        raise ValueError("a URL of a proxy or engine is http(s)://host[:port]")
    return url.rstrip("/")
