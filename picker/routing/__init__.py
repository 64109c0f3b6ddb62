"""The pick: one request through index, rows, policy and ledger, and what became of it afterwards.

Law of the room: sans-I/O and on the caller's clock, so that service and simulation run this very code.
"""
