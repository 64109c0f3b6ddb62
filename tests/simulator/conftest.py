import pytest

from picker.simulator import blocks


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """So that no test's time holds the compiling of kernels."""
    blocks.warm()
