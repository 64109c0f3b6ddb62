"""Made-up workloads have the rates, lengths and sharing that were asked for, from the seed alone."""

import itertools
import statistics

import pytest

from picker.simulator.generator import generate
from picker.simulator.workload import Workload, chain


def gaps(workload: Workload) -> list[float]:
    return [b[0] - a[0] for a, b in itertools.pairwise(workload.arrivals)]


def reuse(workload: Workload) -> float:
    """Share of blocks seen before, with an endless cache."""
    seen: set[int] = set()
    hits = total = 0
    for _, job in workload.arrivals:
        blocks = chain(job, 16).tolist()
        hits += sum(block in seen for block in blocks)
        total += len(blocks)
        seen.update(blocks)
    return hits / total


def test_arrivals_are_poisson_at_the_rate() -> None:
    spaces = gaps(generate("gen:x?rate=10&requests=4000"))
    assert statistics.mean(spaces) == pytest.approx(100.0, rel=0.05)
    assert statistics.stdev(spaces) / statistics.mean(spaces) == pytest.approx(1.0, rel=0.07)


def test_a_coefficient_of_variation_makes_bursts() -> None:
    spaces = gaps(generate("gen:x?rate=10&requests=4000&cv=4"))
    assert statistics.mean(spaces) == pytest.approx(100.0, rel=0.25)
    assert statistics.stdev(spaces) / statistics.mean(spaces) == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.28, 0.71])
def test_sharing_is_what_was_asked_for(share: float) -> None:
    assert reuse(generate(f"gen:x?share={share}&requests=1000&groups=10")) == pytest.approx(share, abs=0.06)


def test_load_and_sharing_shift_half_way() -> None:
    workload = generate("gen:x?rate=8&rate_after=12&share=0&share_after=0.5&requests=2000")
    half = len(workload.arrivals) // 2
    first, second = (Workload("h", part) for part in (workload.arrivals[:half], workload.arrivals[half:]))
    assert second.rate / first.rate == pytest.approx(1.5, rel=0.15)
    assert reuse(first) == 0.0
    assert reuse(second) > 0.3


def test_the_long_mix_reaches_128k() -> None:
    lengths = [job.prompt_tokens for _, job in generate("gen:x?mix=long&requests=2000").arrivals]
    assert 100_000 < max(lengths) <= 131_072
    assert min(lengths) >= 512


def test_a_seed_says_it_all() -> None:
    first, same, other = (
        [(at, job.prompt_tokens, job.output_tokens) for at, job in generate("gen:x?requests=50", seed=s).arrivals]
        for s in (1, 1, 2)
    )
    assert first == same != other


@pytest.mark.parametrize(
    "spec",
    ["gen:x?groups=0", "gen:x?nosuch=1", "gen:x?rate=-1", "gen:x?mix=odd", "gen:x?rate=1&rate=2", "gen:x?rate=nan"],
)
def test_a_spec_that_cannot_be_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="gen:x"):
        generate(spec)


def test_a_skip_leaves_the_later_requests_as_they_are() -> None:
    spec = "gen:x?requests=20&share=0.5&share_after=0.9"
    whole, later = generate(spec).arrivals[15:], generate(spec, skip=15).arrivals
    assert [chain(job, 16).tolist() for _, job in later] == [chain(job, 16).tolist() for _, job in whole]
    assert [at for at, _ in later] == pytest.approx([at - whole[0][0] for at, _ in whole])
