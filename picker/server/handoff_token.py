"""The secret that a pool's proxies and its picker share."""

import hmac
from pathlib import Path

TOKEN_HEADER = "X-Handoff-Token"
WHY_HEADER = "X-Handoff-Why"
"""Of a peer that brings a stream: what made it leave."""


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
