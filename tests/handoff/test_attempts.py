"""How often a request is tried, and when it is to blame."""

from picker.handoff.attempts import Attempts, FailoverSettings


def attempts(tries: int = 4, within_s: float = 15.0) -> Attempts:
    return Attempts(FailoverSettings(tries=tries, within_s=within_s), own="a")


def test_a_break_goes_to_the_first_peer() -> None:
    assert attempts().broke("a", "cut", ["b", "c"], now=0.0) == "b"


def test_two_engines_dead_under_a_request_are_enough() -> None:
    tried = attempts()
    assert tried.broke("a", "cut", ["b", "c"], now=0.0) == "b"
    tried.running()
    assert tried.broke("b", "cut", ["b", "c"], now=9.0) is None
    assert tried.poison


def test_an_engine_that_is_not_there_was_not_killed() -> None:
    tried = attempts()
    assert tried.broke("a", "cut", ["b", "c"], now=0.0) == "b"
    assert tried.broke("b", "refused", ["b", "c"], now=0.1) == "c"
    assert not tried.poison


def test_nobody_is_asked_twice_for_one_break() -> None:
    tried = attempts(tries=9)
    assert [tried.broke(name, "overloaded", ["b"], now=0.0) for name in ("b", "a")] == ["a", None]


def test_the_time_to_find_another_engine_is_bounded() -> None:
    tried = attempts(within_s=1.0)
    assert tried.broke("a", "refused", ["b", "c"], now=0.0) == "b"
    assert tried.broke("b", "refused", ["b", "c"], now=2.0) is None


def test_switched_off_it_ends_with_the_engine() -> None:
    assert Attempts(FailoverSettings(on=False), own="a").broke("a", "cut", ["b"], now=0.0) is None
