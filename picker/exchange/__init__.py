"""The ext_proc conversation about one HTTP request: message bytes in, reply bytes and events out.

Law of the room: sans I/O. It knows Envoy's modes, headers, metadata keys and statuses; it knows no endpoint, no policy
and no socket. Whatever Envoy (or anyone else) says, the room answers with events and replies, never with an exception.
"""
