"""The suite that a cluster's gateway must pass, against `picker up`: real Envoy, picker, simulated engines."""

from e2e.suite.against_up import fails_of_suite


async def test_picker_up_passes_the_suite() -> None:
    options = ["--engines", "3", "--requests", "3", "--speedup", "10", "--policy", "multiplicative"]
    assert await fails_of_suite(options, without="embeddings", patience_s=240) == ""
