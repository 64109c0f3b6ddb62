"""Sessions and cold prompts: what a composed policy remembers of its picks."""

import base64

import numpy as np
import pytest
from composing import REQUEST, composed, look, members, of_session

from picker.policies.composed import sessions
from picker.policies.composed.cold_turns import ColdTurns, NoHitLru
from picker.policies.composed.look import Look, Remembers
from picker.policies.composed.plugins import FILTERS, SCORERS
from picker.policies.composed.policy import Step
from picker.policies.composed.sessions import token_for
from picker.policies.example import example_rows

POOL = members({}, {}, {})
RNG = np.random.default_rng(0)
TOKENS = [token_for("10.0.0.1:8000"), base64.b64encode(b"models/pod-1").decode()]


def seen(session: str = "", token: str = "", now: float = 0.0) -> Look:
    return look(of_session(session, token), POOL, now, waiting=[0, 0, 0])


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_brings_a_session_back_to_its_endpoint(token: str) -> None:
    wish, rule = SCORERS["session-affinity-scorer"]({}, RNG), FILTERS["session-affinity-filter"]({}, RNG)

    assert wish(seen(token=token)).tolist() == [0.0, 1.0, 0.0]
    assert rule(seen(token=token)).tolist() == [False, True, False]


@pytest.mark.parametrize(
    "token", ["", "no base64!", "////", token_for("10.9.9.9:8000"), base64.b64encode(b"\xff").decode()]
)
def test_a_token_that_names_nobody_asks_for_nothing(token: str) -> None:
    wish, rule = SCORERS["session-affinity-scorer"]({}, RNG), FILTERS["session-affinity-filter"]({}, RNG)

    assert wish(seen(token=token)).tolist() == [0.0, 0.0, 0.0]
    assert rule(seen(token=token)).all()


def test_an_id_is_remembered_until_its_time_to_live_is_over() -> None:
    rule = FILTERS["session-affinity-filter"]({"strategy": "session_id"}, RNG)
    assert isinstance(rule, Remembers)

    assert rule(seen("a")).all()
    rule.picked(seen("a"), row=2)
    assert rule(seen("a", now=300.0)).tolist() == [False, False, True]
    assert rule(seen("b", now=300.0)).all()
    assert rule(seen("a", now=301.0)).all()


def test_a_session_whose_endpoint_is_gone_is_bound_anew() -> None:
    wish = SCORERS["session-affinity-scorer"]({"algorithm": "session_id_header"}, RNG)
    assert isinstance(wish, Remembers)
    wish.picked(seen("a"), row=2)
    smaller = look(of_session("a"), members({}, {}), waiting=[0, 0])

    assert wish(smaller).tolist() == [0.0, 0.0]
    wish.picked(smaller, row=0)
    assert wish(smaller).tolist() == [1.0, 0.0]


def test_remembered_sessions_are_bounded_and_the_longest_unused_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    rule = FILTERS["session-affinity-filter"]({"strategy": "session_id"}, RNG)
    assert isinstance(rule, Remembers)
    for session in ("a", "b", "a", "c"):
        rule.picked(seen(session), row=1)

    assert [rule(seen(session)).all() for session in "abc"] == [False, True, False]


def test_cold_prompts_go_round() -> None:
    policy = composed(Step("no-hit-lru-scorer"))
    rows, chosen = example_rows(REQUEST, waiting=[0, 0, 0]), []
    policy.meet(POOL.by_slot)
    for _ in range(6):
        chosen.append(int(policy.score(REQUEST, rows, 0.0).cost.argmin()))
        policy.picked(REQUEST, rows, chosen[-1], 0.0)

    assert chosen == [0, 1, 2, 0, 1, 2]


def test_a_warm_prompt_takes_no_turn() -> None:
    turns = ColdTurns(NoHitLru())
    turns.picked(look(hit_tokens=[0, 16]), row=1)
    turns.picked(look(hit_tokens=[0, 16]), row=0)

    assert turns(look(hit_tokens=[0, 0])).tolist() == [0.0, 1.0]


def test_a_newcomer_in_an_old_slot_has_had_no_turn() -> None:
    turns = ColdTurns(NoHitLru())
    turns.picked(look(hit_tokens=[0, 0]), row=0)
    turns.meet(members())
    turns.picked(look(hit_tokens=[0, 0]), row=1)

    assert turns(look(hit_tokens=[0, 0])).tolist() == [1.0, 0.0]


def test_only_the_latest_turns_are_known() -> None:
    turns = ColdTurns(NoHitLru(lru_size=1))
    for row in (0, 1):
        turns.picked(look(hit_tokens=[0, 0]), row)

    np.testing.assert_array_equal(turns(look(hit_tokens=[0, 0])), [1.0, 0.0])
