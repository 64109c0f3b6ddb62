import pytest

from picker.server.engine_clock import warm


@pytest.fixture(scope="session", autouse=True)
def compiled() -> None:
    """So that no test's time holds the compiling of kernels."""
    warm()
