"""Step times that a configuration gives reach the planner of a served pool."""

import time
from pathlib import Path

import pytest

from picker.policies.staged import Staged
from picker.pool.view import Endpoint
from picker.server.config import ConfigError, PickerConfig, read_config
from picker.server.options import ServeOptions
from picker.server.served_pool import Lane, ServedPool
from picker.simulator.steptime import load_row

ROW = "h100_sxm/llama-3-8b tp1"


def config(steps: str) -> PickerConfig:
    return read_config(f"""
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: staged-policy
  parameters: {{steps: {steps}}}
""")


def planned(tmp_path: Path, steps: str, hardware: list[str]) -> Staged:
    """The policy of a pool of engines with these labels, once it has thought."""
    pool = ServedPool("default", ServeOptions(run_dir=tmp_path), config(steps), Lane())
    labels = [{"picker.dev/hardware": label} if label else {} for label in hardware]
    pool.serve_endpoints([Endpoint(f"10.0.0.{i}:8000", labels=of) for i, of in enumerate(labels)])
    policy = pool.router.policy
    assert isinstance(policy, Staged)
    think = policy.due(time.monotonic())
    assert think is not None
    policy.adopt(think(), time.monotonic())
    return policy


def test_rows_that_labels_stand_for_are_known_from_the_start(tmp_path: Path) -> None:
    policy = planned(tmp_path, f"{{H100: {ROW}}}", ["H100", "H100"])

    assert {model.prefill_ms for model in policy.models.values()} == {load_row(ROW).c2}
    assert policy.outlook == "not staged: 0 requests seen, 200 needed"


def test_numbers_are_known_as_they_are(tmp_path: Path) -> None:
    steps = "{'': {fixedMs: 6, decodeMs: 0.1, contextMs: 90, prefillMs: 0.03, alpha: 0.2, kvTokens: 50000}}"
    policy = planned(tmp_path, steps, ["", ""])

    assert [(model.fixed_ms, model.alpha, model.kv_tokens) for model in policy.models.values()] == [(6, 0.2, 5e4)] * 2


def test_engines_of_other_hardware_are_fitted(tmp_path: Path) -> None:
    policy = planned(tmp_path, f"{{H100: {ROW}}}", ["H100", "L40S"])

    assert policy.outlook == "not staged: step times are not known yet"


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ("{H100: h100}", "no step-time row 'h100'; there are: "),
        ("{H100: {fixedMs: 0, decodeMs: 0, contextMs: 0, prefillMs: 0}}", "fixedMs"),
        ("{H100: {fixedMs: 6}}", "decodeMs"),
        ("{H100: {fixedMs: .nan, decodeMs: 0, contextMs: 0, prefillMs: 0}}", "fixedMs"),
    ],
)
def test_step_times_that_cannot_be_are_refused(steps: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(steps)
