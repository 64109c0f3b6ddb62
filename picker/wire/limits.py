"""How much a peer may have of us."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Of one connection. Sizes in bytes, times in seconds.

    `streams`: open at once; announced. `message_bytes`: of one message. `assembling_bytes`: of all messages that have
    begun to arrive, together; None for three times `message_bytes`. `queued_bytes`: answers that the peer does not
    take, together. `header_bytes`: of one header list as RFC 9113 counts it; announced. `stream_window`,
    `connection_window`: what may be on its way to us unconsumed.

    `stall_s`: how long a stream may stop in the middle of a message or of our answer, and a connection may take to
    begin or to read what we wrote. `keepalive_s`: after so long a silence we send a PING; after `keepalive_timeout_s`
    more, the connection is dead.

    `idle_frames`, `idle_frames_per_s`: frames that bring no request nearer to its answer: PING, SETTINGS, PRIORITY,
    WINDOW_UPDATE, empty and tiny DATA, kinds unknown; so many at once, and so many a second for ever. Every
    `bytes_per_idle_frame` of ours that are taken allow one more. `resets`, `resets_per_s`: streams that were begun and
    broken off by the peer before we answered anything, or begun against the rules; each answered one allows one more.
    `resets` above `streams` lets all clients behind a proxy leave at once.
    """

    streams: int = 4096
    message_bytes: int = 64 << 20
    assembling_bytes: int | None = None
    queued_bytes: int = 128 << 20
    header_bytes: int = 16 << 10
    stream_window: int = 256 << 10
    connection_window: int = 16 << 20
    stall_s: float = 60.0
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    idle_frames: int = 10_000
    idle_frames_per_s: float = 2000.0
    bytes_per_idle_frame: int = 64
    resets: int = 5000
    resets_per_s: float = 100.0

    @property
    def assembling(self) -> int:
        """`assembling_bytes`, decided."""
        return 3 * self.message_bytes if self.assembling_bytes is None else self.assembling_bytes
