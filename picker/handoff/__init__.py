"""A client's stream that outlives its engine: what to ask of the next one, and how its answer goes on as the first's.

Law of the room: sans I/O. Bytes of an engine's answer go in, events for the client come out; whoever holds the sockets
says when an engine changes. Facts about vLLM are those of 0.32 (`return_token_ids`, stop strings, usage).
"""
