"""The flags of llm-d-router and lwepp: known, passed over with a warning, or refused with the reason."""

import contextlib

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from picker.server.cli import main
from picker.server.flags import FLAGS, WARNINGS, PeerFlag, peers_flags
from picker.server.go_flags import seconds, size
from picker.server.serve_command import serve


def of(fate: str) -> list[PeerFlag]:
    return [flag for flag in FLAGS if flag.fate == fate]


@pytest.mark.parametrize("flag", of("same"), ids=lambda flag: flag.name)
def test_a_flag_that_is_the_same_here_is_an_option_of_serve(flag: PeerFlag) -> None:
    assert any(f"--{flag.name}" in option.opts for option in serve.params)


@pytest.mark.parametrize("flag", of("refused"), ids=lambda flag: flag.name)
def test_a_refused_flag_ends_the_start_with_the_reason(flag: PeerFlag) -> None:
    result = CliRunner().invoke(main, ["serve", "--pool-name=p", f"--{flag.name}=something"])
    assert result.exit_code == 2
    assert flag.why.split(":")[0].split(",")[0] in " ".join(result.output.split())


def warned(*argv: str) -> list[str]:
    """Flags that a command warns of."""
    told: list[str] = []

    @click.command()
    @peers_flags
    @click.pass_context
    def command(ctx: click.Context) -> None:
        told.extend(name for name, _ in ctx.meta.get(WARNINGS, ()))

    assert CliRunner().invoke(command, argv).exit_code == 0
    return told


@pytest.mark.parametrize("flag", of("ignored"), ids=lambda flag: flag.name)
def test_an_ignored_flag_is_warned_of_unless_it_asks_for_nothing(flag: PeerFlag) -> None:
    assert warned(f"--{flag.name}=something") == [flag.name]
    for value in flag.unless:
        assert warned(f"--{flag.name}={value}") == []


def test_a_switch_alone_asks_for_something() -> None:
    assert warned("--tracing", "--enable-pprof=false") == ["tracing"]


def test_a_flag_of_nobody_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["serve", "--pool-nam=p"])
    assert result.exit_code == 2
    assert "--pool-name" in result.output


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(hours: int, minutes: int, secs: int, ms: int) -> None:
    assert seconds(f"{hours}h{minutes}m{secs}s{ms}ms") == pytest.approx(hours * 3600 + minutes * 60 + secs + ms / 1000)


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert seconds(text) >= 0


@given(st.text(max_size=20))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert size(text) >= 0
