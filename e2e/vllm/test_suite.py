"""The suite that a cluster's gateway must pass, against `picker up` with real engines."""

import pytest

from e2e.suite.against_up import fails_of_suite
from picker.server.vllm_install import VllmInstall


@pytest.mark.timeout(600)
async def test_picker_up_with_vllm_passes_the_suite(install: VllmInstall) -> None:
    options = ["--engine", "vllm", "--engines", "2", "--requests", "2", "--policy", "multiplicative"]
    assert await fails_of_suite(options, without="embeddings", patience_s=400) == ""
