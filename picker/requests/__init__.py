"""A client's body as a `Request`: what the pick needs to know, and nothing more.

Law of the room: bytes in, values out. No socket, no clock, no pod.
"""
