"""`picker conformance`: what it refuses."""

import pytest
from click.testing import CliRunner, Result

from picker.server.conformance_command import conformance


def invoke(*argv: str) -> Result:
    return CliRunner().invoke(conformance, argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--target", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["--target", "127.0.0.1:70000"], "'127.0.0.1:70000' is not HOST:PORT"),
        (["--epp", "127.0.0.1:9002", "--envoy"], "needs --endpoints"),
    ],
)
def test_a_target_that_makes_no_sense_is_a_usage_error(argv: list[str], message: str) -> None:
    result = invoke(*argv)
    assert result.exit_code == 2
    assert message in result.output


def test_an_epp_that_is_not_there_is_an_error_and_no_table() -> None:
    result = invoke("--target", "127.0.0.1:1", "--insecure", "--patience", "0.3")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert "passed" not in result.output
