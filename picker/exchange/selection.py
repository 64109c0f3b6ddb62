"""The gateway conformance suite's steering header: a client that says where its own request may go.

Only for tests, since any client could pick its own endpoint: off unless the plugin `header-based-testing-filter` is on.
"""


def selected(value: str) -> tuple[str, ...] | None:
    """The endpoints of a comma list of `ip` or `ip:port`; None where it names none, which restricts nothing.

    >>> selected("10.0.0.1, 10.0.0.2:3000"), selected("fd00::1"), selected(" ")
    (('10.0.0.1', '10.0.0.2:3000'), ('[fd00::1]',), None)
    """
    return tuple(_bracketed(name) for part in value.split(",") if (name := part.strip())) or None


def narrowed(subset: tuple[str, ...] | None, wanted: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Both restrictions at once: a header must not reach beyond the gateway's subset. None restricts nothing.

    >>> narrowed(("10.0.0.1:3000", "10.0.0.2:3000"), ("10.0.0.1", "10.0.0.3:3000"))
    ('10.0.0.1:3000',)
    """
    if subset is None or wanted is None:
        return wanted if subset is None else subset
    both = [_finer(one, other) for one in subset for other in wanted]
    return tuple(dict.fromkeys(name for name in both if name is not None))


def _finer(one: str, other: str) -> str | None:
    """What two names have in common: themselves, or the `ip:port` of a bare ip; else None."""
    if one == other or _ip(one) == other:
        return one
    return other if _ip(other) == one else None


def _ip(name: str) -> str:
    """The name without its port; a bare ip as it is."""
    host, _, port = name.rpartition(":")
    return host if host and port.isdigit() and (host[-1] == "]" or ":" not in host) else name


def _bracketed(name: str) -> str:
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name
