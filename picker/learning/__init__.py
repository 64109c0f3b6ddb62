"""What picks really cost, learned: features, models of TTFT and TPOT, their training, and the guard over them.

No sockets, files or processes here: rows go in, models come out, on the caller's clock.
"""
