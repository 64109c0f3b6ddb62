"""A vLLM engine as a pure step model on a virtual clock, and the traces that drive it.

Law of the room: no socket, no real clock, no hidden randomness. Time goes in, durations come out; every draw is seeded.

The walk: `trace` reads requests, `blocks` names and holds their KV blocks, `engine` schedules `sequence`s step by step,
`steptime` says how long each step takes, `replay` runs one engine over one arrival list. `toy` gives text to tokens
where the same engine stands behind a socket.
"""
