"""grpc.health.v1 under all the names that gateways and charts ask for, whichever transport asks."""

from collections.abc import Callable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from picker.server.streams import EXT_PROC

HEALTH = "grpc.health.v1.Health"
ALWAYS_SERVING = ("liveness",)
READY_NAMES = ("", "readiness", EXT_PROC, "inference-extension")
"""Health names of the contract that follow readiness; `liveness` serves from start to end."""

Status = health_pb2.HealthCheckResponse


class Health:
    """Readiness by name, asked once or watched.

    llm-d-router answers every name there may be with its readiness, unless it elects a leader: then a name that it does
    not know is SERVICE_UNKNOWN. `strict` says which.
    """

    def __init__(self, strict: bool = False) -> None:
        self._strict, self._ready = strict, False
        self.closed = False
        """Whoever watches is to be told goodbye."""
        self._watchers: set[Callable[[], None]] = set()

    def ready(self, yes: bool) -> None:
        """Readiness on or off; liveness stays on."""
        self._ready = yes
        self._tell()

    def close(self) -> None:
        """Let no one watch any more; who asks is still answered."""
        self.closed = True
        self._tell()

    def answer(self, name: str) -> bytes:
        """The HealthCheckResponse about a name."""
        if name in ALWAYS_SERVING:
            status = Status.SERVING
        elif self._strict and name not in READY_NAMES:
            status = Status.SERVICE_UNKNOWN
        else:
            status = Status.SERVING if self._ready else Status.NOT_SERVING
        return bytes(Status(status=status).SerializeToString())

    def watch(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever an answer may have changed, or health was closed, until `unwatch`."""
        self._watchers.add(tell)

    def unwatch(self, tell: Callable[[], None]) -> None:
        """No longer."""
        self._watchers.discard(tell)

    def _tell(self) -> None:
        for tell in [*self._watchers]:
            tell()


def asked(message: bytes) -> str:
    """The name in a HealthCheckRequest. Raises ValueError for bytes that are none."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError as error:
        raise ValueError("no HealthCheckRequest") from error
