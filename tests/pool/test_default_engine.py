"""The engine of endpoints whose labels do not say."""

import pytest

from picker.pool.default_engine import with_engine
from picker.pool.view import Endpoint


@pytest.mark.parametrize("label", ["llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"])
def test_a_label_goes_before_the_default(label: str) -> None:
    named, silent = Endpoint("10.0.0.1:8000", labels={label: "vllm"}), Endpoint("10.0.0.2:8000")

    assert [endpoint.engine for endpoint in with_engine([named, silent], "sglang")] == ["vllm", "sglang"]


def test_without_a_default_nothing_changes() -> None:
    endpoints = (Endpoint("10.0.0.1:8000", engine="trtllm-serve"),)

    assert with_engine(endpoints, "vllm") == endpoints
