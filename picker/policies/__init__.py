"""Rank endpoints for a request. One policy, one file, one verb: `score`.

Law of the room: pure. (request, rows, now) in, scores and their reasons out; time and randomness are arguments.
"""
