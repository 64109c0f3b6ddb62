"""A gRPC server's half of HTTP/2 (RFC 9113), without I/O: bytes in, events and bytes out.

Law of the room: no socket, no task, no clock of its own. It knows frames, windows, header blocks and gRPC's prefix and
trailers; it knows no service and no message. Whatever a peer sends is answered with events, an answer or the right
error code, never with an exception, and costs no more memory than `WireLimits` allows.
"""
