"""A vLLM engine as a pure step model on a virtual clock, and the traces that drive it.

Law of the room: no socket, no real clock, no hidden randomness. Time goes in, durations come out; every draw is seeded.

The walk: `trace` reads requests, `blocks` names and holds their KV blocks, `engine` schedules `sequence`s step by step,
`steptime` says how long each step takes, `replay` runs one engine over one arrival list. `toy` gives text to tokens
where the same engine stands behind a socket.

A cluster: `workload` (from `workload_files` or the `generator`) says what arrives, `station` puts an engine on a clock,
`cluster` puts stations behind the service's router with `signals` as late as in life and `events` that befall them,
`summary` makes numbers of it, `capacity` finds what a load is a share of, `replay_run` is one cell of a comparison.
"""
