"""Filters, weighted scorers and a picker, put together from a configuration of llm-d-router.

`plugins.py` names every plugin; `policy.py` runs them. A new scorer is a function, a line there, a test and a row in
the docstring of `policy.py`.
"""
