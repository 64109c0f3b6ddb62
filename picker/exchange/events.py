"""What an exchange tells its owner, in the order in which it happens."""

import enum
from collections.abc import Mapping

from msgspec import Struct

from picker.exchange.failures import Refusal


class Ending(enum.Enum):
    """How an exchange ended."""

    ANSWERED = "answered"
    """The whole answer went by."""
    REFUSED = "refused"
    """We said no; if the answer had begun, its client sees it cut off."""
    DETACHED = "detached"
    """The answer goes on without us. Its end is known to the access log only."""
    ABORTED = "aborted"
    """The stream broke off before the end of the answer: the client, the endpoint or Envoy gave up."""


class RequestArrived(Struct, frozen=True, gc=False):
    """The request is here as far as a pick may see it: `answer` or `refuse` is wanted now.

    `headers`: lower-case names, without pseudo-headers and without the headers that only we may set; values of a
    repeated header are joined with ", " (RFC 9110 section 5.3). `path` keeps its query. `has_body` with an empty `body`
    means that the proxy's body mode does not show us the body. `subset` is None when the gateway sets no restriction;
    an empty one must be refused.
    """

    headers: Mapping[str, str]
    method: str
    path: str
    request_id: str
    body: bytes = b""
    has_body: bool = False
    subset: tuple[str, ...] | None = None


class ResponseStarted(Struct, frozen=True, gc=False):
    """The answer's headers. `status` is 0 where `:status` could not be read; `served` is the `ip:port` that really
    served, None where the proxy does not tell. Comes without a RequestArrived when the proxy answered by itself."""

    status: int
    served: str | None = None
    content_type: str = ""
    streaming: bool = False


class ResponseData(Struct, frozen=True, gc=False):
    """Bytes of the answer's body, as they pass; `end` marks the last ones, which may be empty."""

    body: bytes
    end: bool = False


class RequestRefused(Struct, frozen=True, gc=False):
    """The exchange refused on its own account, before or instead of asking for a pick."""

    refusal: Refusal


class ProtocolError(Struct, frozen=True, gc=False):
    """The other side said something that the protocol does not know at this point."""

    reason: str


class RequestEnded(Struct, frozen=True, gc=False):
    """Nothing more will come. Exactly one per exchange, always the last event."""

    ending: Ending

    @property
    def complete(self) -> bool:
        """The whole answer was seen to pass."""
        return self.ending is Ending.ANSWERED


Event = RequestArrived | ResponseStarted | ResponseData | RequestRefused | ProtocolError | RequestEnded
