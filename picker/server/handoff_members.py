"""Who the proxies of a pool are, and this one's part in the plan: JSON, from a file or put with the pool's token."""

import hmac
import math
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from picker.stages.agent_state import Membership
from picker.stages.step_model import StepModel

MAX_BYTES = 1 << 20
_MOST = 4096
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
_Names = Annotated[tuple[_Name, ...], msgspec.Meta(max_length=_MOST)]


class Members(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`engines` has all proxies of the pool by name, as base URLs. The rest is the engine's stage (`picker/stages`):
    lengths up to `high` tokens (None: all) belong to it. Without a `step_model` nothing is moved of its own accord."""

    engines: Annotated[dict[_Name, Annotated[str, msgspec.Meta(max_length=2048)]], msgspec.Meta(max_length=_MOST)] = {}
    high: float | None = None
    stage: _Names = ()
    neighbours: _Names = ()
    following: _Names = ()
    step_model: StepModel | None = None

    def membership(self, own: str) -> Membership:
        """As the agent of the engine `own` sees it; names without a URL are nobody."""
        others = self.engines.keys() - {own}
        known = [tuple(name for name in names if name in others) for names in self._parts]
        return Membership(frozenset(others), math.inf if self.high is None else self.high, *known)

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


def read_token(file: Path | None) -> str | None:
    """The pool's token. Raises ValueError for one that can be guessed, OSError for a file that cannot be read."""
    if file is None:
        return None
    token = file.read_text().strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise ValueError("a pool token has 16 printable ASCII characters or more")
    return token


def same_token(token: str | None, given: str) -> bool:
    """Compared in constant time; without a token nobody is a peer."""
    return token is not None and hmac.compare_digest(token.encode(), given.encode("utf-8", "replace"))
