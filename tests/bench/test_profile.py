"""The table of where a request's microseconds go."""

import pytest

from bench.profile import PARTS, measured

STEPS = {
    False: ["request", "end of the stream", "record of the log"],
    True: ["request", "answer's headers", "chunk", "chunk with usage", "answer's end"],
}


@pytest.mark.parametrize("echo", [False, True])
async def test_every_step_is_told_part_by_part(echo: bool) -> None:
    found = await measured(512, echo, requests=2, rounds=1)
    assert list(found) == STEPS[echo]
    assert all(len(parts) == len(PARTS) for parts in found.values())
    assert all(part >= 0 for parts in found.values() for part in parts)
    assert found["request"][PARTS.index("router")] > 0
