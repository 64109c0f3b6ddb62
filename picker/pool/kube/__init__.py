"""A pool kept by Kubernetes, sans-I/O: which calls to make, what their answers mean, which endpoints follow.

Law of the room: nothing here opens a socket or reads a clock, and no object's field is believed before it was checked.
"""
