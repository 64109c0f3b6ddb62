"""A chunk in the midst of an echoed answer, read and answered at once: of the messages of a full duplex answer nearly
all are such. What stands before its bytes, in the message and in the reply, follows from their number and is kept.
"""

from functools import lru_cache

from picker.exchange import encode
from picker.proto.ext_proc_pb2 import HttpBody, ProcessingRequest

METADATA_CONTEXT = 8 << 3 | 2
"""Tag of what may stand behind the body in a message."""


def relayed(message: bytes) -> tuple[bytes, bytes] | None:
    """The bytes of the chunk, and the reply that sends them on.

    None for any other message, for one that is written in another way than usual, and for none at all.
    """
    try:
        size, at = message[1], 2
        if size >= 0x80:
            size, at = size + (message[2] - 1 << 7), 3
        stop = at + size
        # Behind it at most metadata.
        if stop != len(message) and not (message[stop] == METADATA_CONTEXT and _fills(message, stop + 1)):
            return None
    except IndexError:
        return None
    heads = _heads(size)
    if heads is None or not message.startswith(heads[0]):
        return None
    chunk = message[len(heads[0]) : stop]
    return chunk, heads[1] + chunk


def _fills(message: bytes, at: int) -> bool:
    """Whether the field whose length is here ends where the message does. Raises IndexError."""
    size = message[at]
    if size < 0x80:
        return at + 1 + size == len(message)
    return message[at + 1] < 0x80 and at + 2 + size + (message[at + 1] - 1 << 7) == len(message)


def chains() -> tuple[bytes, bytes]:
    """Tags of the nested fields around a chunk, outermost first: in the message, and in its reply."""
    (reply,) = encode.streamed(encode.RESPONSE_BODY, b"c", end=False)
    message = ProcessingRequest(response_body=HttpBody(body=b"c")).SerializeToString()
    # Each tag has its length behind it.
    return message[:-1:2], reply[:-1:2]


@lru_cache(maxsize=4096)
def _heads(size: int) -> tuple[bytes, bytes] | None:
    """What is before the bytes of a chunk in a body of `size` bytes, and in the reply; None where no chunk has such."""
    for length in range(max(1, size - 4), size):
        body = HttpBody(body=bytes(length))
        if body.ByteSize() == size <= 0x3FFF:
            (reply,) = encode.streamed(encode.RESPONSE_BODY, body.body, end=False)
            return ProcessingRequest(response_body=body).SerializeToString()[:-length], reply[:-length]
    return None
