"""Configuration files of a few lines, read; and what is said against them."""

import pytest

from picker.server.config import ConfigError, PickerConfig, read_config

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"

LLMD = """
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- name: pick
  type: max-score-picker
  parameters: {maxNumOfEndpoints: 2}
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 1.5}
  - {pluginRef: prefix-cache-scorer}
  - {pluginRef: pick}
"""


def read(body: str) -> PickerConfig:
    """A file of this body under a right head; its first line is line 3."""
    return read_config(HEAD + body.lstrip("\n"), "f")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(text, "f")
    return list(caught.value.problems)


def wrong(body: str) -> list[str]:
    return problems(HEAD + body.lstrip("\n"))
