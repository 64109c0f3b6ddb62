"""Engines of a pool divided into ranges of length, after CascadeInfer (arXiv 2512.19179): who plans the ranges, who
shifts them, and how engines agree to move a running request.

Pure: traffic and step models go in, plans, messages and actions come out, on the caller's clock. Only numpy is used.
"""
