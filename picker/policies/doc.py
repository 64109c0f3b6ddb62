"""docs/policies.md, written from the policies' own docstrings.

Run `python -m picker.policies.doc > docs/policies.md` after changing one; a test holds the page to the code.
"""

import inspect
import sys

import numpy as np

from picker.policies.registry import DEFAULT_POLICY, REGISTRY

_INTRO = """# Policies

A policy ranks the endpoints for one request. Costs are compared, lowest wins, equal costs are drawn at random, infinite
cost leaves an endpoint out. What a policy may know is one row per endpoint: own reservations merged with what was
scraped.

On the command line it is `--policy NAME`. In a configuration file NAME is the plugin type `NAME-policy` and its
parameters are the plugin's. Without either, it is `{default}`.

    apiVersion: llm-d.ai/v1alpha1
    kind: EndpointPickerConfig
    plugins:
    - type: sticky-until-saturated-policy
      parameters:
        peakPrefillRate: 15000

This page is generated: `python -m picker.policies.doc > docs/policies.md`.

| policy | in a line |
|---|---|
{rows}
"""


def policies_page() -> str:
    """The whole page, Markdown. Each section is the docstring of the policy's module."""
    docs = {name: _module_doc(name) for name in REGISTRY}
    rows = "\n".join(f"| [{name}](#{name}) | {doc.partition(chr(10))[0]} |" for name, doc in docs.items())
    sections = "\n\n".join(f"## {name}\n\n{doc}" for name, doc in docs.items())
    return f"{_INTRO.format(default=DEFAULT_POLICY, rows=rows)}\n{sections}\n"


def _module_doc(name: str) -> str:
    policy = REGISTRY[name]({}, np.random.default_rng(0))
    return inspect.cleandoc(sys.modules[type(policy).__module__].__doc__ or "")


if __name__ == "__main__":
    sys.stdout.write(policies_page())
