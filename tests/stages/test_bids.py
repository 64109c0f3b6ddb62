"""Agents: who asks, who bids, what a move must save, and how a transfer ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_agents import A_STAGE, LOAD, agent, resident, said, state, to_commit
from stage_traffic import ENGINE

from picker.stages.agent_state import Membership, Resident, prefill_ms, reliefs_ms, step_ms
from picker.stages.messages import (
    Accept,
    Ask,
    Bid,
    Cancel,
    Commit,
    Committed,
    Decline,
    Drop,
    Free,
    Load,
    Offer,
    Refused,
    Reserve,
    Resume,
    Stop,
)

# -- who asks whom ----------------------------------------------------------------------------------------------------


def test_an_engine_at_ease_asks_nobody() -> None:
    assert not said(agent().tick(state(resident()), 0.0), Ask)


def test_a_full_engine_asks_its_own_stage_first_and_the_neighbours_next() -> None:
    full, asker = state(resident(), free=1_000), agent()

    first = said(asker.tick(full, 0.0), Ask)
    asker.tick(full, 0.1)
    then = said(asker.tick(full, 1.2), Ask)

    assert [ask.to for ask in first] == ["b"]
    assert [ask.to for ask in then] == ["c"]


def test_an_engine_much_slower_than_its_peers_asks() -> None:
    asker = agent()
    asker.receive(Load("b", "a", 7.0), 0.0)

    busy = state(*(resident(str(i), 60_000.0) for i in range(8)))

    assert said(asker.tick(busy, 0.0), Ask)


def test_what_has_outgrown_its_stage_asks_the_next_one() -> None:
    asker = agent(replace(A_STAGE, high=4096.0, following=("c",)))

    [ask] = said(asker.tick(state(resident(length=1000.0), resident("long", 5000.0)), 0.0), Ask)

    assert (ask.to, ask.length) == ("c", 5000.0)


@pytest.mark.parametrize("firm", [True, False])
def test_where_stages_are_firm_what_has_outgrown_its_own_leaves_whatever_that_saves(firm: bool) -> None:
    asker, grown = agent(replace(A_STAGE, high=4096.0, following=("c",), firm=firm)), state(resident("long", 5000.0))

    asker.tick(grown, 0.0)
    asker.receive(Bid("c", "a", 0, 1000.0, 1000.0), 0.01)

    assert bool(said(asker.tick(grown, 0.06), Offer)) == firm


def test_what_cannot_be_moved_is_left_alone() -> None:
    assert not said(agent().tick(state(resident(movable=False), free=1_000), 0.0), Ask)


def test_without_a_plan_nobody_is_asked() -> None:
    alone = agent(Membership(pool=frozenset({"b", "c"})))

    assert not said(alone.tick(state(resident(), free=1_000), 0.0), Ask)


# -- bids and offers --------------------------------------------------------------------------------------------------


def test_a_bid_says_what_a_step_would_take_and_what_it_costs_those_who_are_there() -> None:
    bidder = agent(Membership(pool=frozenset({"b"})))
    bidder.tick(state(resident("x", 2000.0), resident("y", 2000.0)), 0.0)

    [bid] = said(bidder.receive(Ask("b", "a", 7, 2000.0, LOAD), 0.0), Bid)

    assert bid.ask == 7
    assert bid.step_ms == pytest.approx(6.0 + 3 * (0.02 + 40.0 * 2000 / 1e6))
    assert bid.burden_ms == pytest.approx(2 * (0.02 + 40.0 * 2000 / 1e6))


def test_an_engine_without_room_or_with_worries_of_its_own_does_not_bid() -> None:
    full, asking = agent(), agent()
    full.tick(state(free=LOAD - 1), 0.0)
    asking.tick(state(resident(), free=10_000), 0.0)

    assert full.receive(Ask("b", "a", 0, 10.0, LOAD), 0.0) == []
    assert asking.receive(Ask("b", "a", 0, 10.0, LOAD), 0.0) == []


def test_where_kv_is_computed_anew_the_wait_of_those_who_are_there_is_in_the_bid() -> None:
    asked = Ask("b", "a", 0, 2000.0, LOAD)
    bids = []
    for computes in (False, True):
        bidder = agent()
        bidder.settings = replace(bidder.settings, computes=computes)
        bidder.tick(state(resident()), 0.0)
        bids += [bid for bid in bidder.receive(asked, 0.01) if isinstance(bid, Bid)]

    brought, computed = bids
    assert computed == replace(brought, wait_ms=2 * prefill_ms(ENGINE, 2000.0, 2000.0))


def test_nobody_bids_for_kv_that_takes_longer_to_compute_than_a_copy_may() -> None:
    bidder = agent()
    bidder.settings = replace(bidder.settings, computes=True)
    bidder.tick(state(), 0.0)

    assert not bidder.receive(Ask("b", "a", 0, 900_000.0, LOAD), 0.01)


def test_the_best_bid_gets_the_offer() -> None:
    source = agent(replace(A_STAGE, stage=("b", "c")))
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 5.0, 0.5), 0.01)
    source.receive(Bid("c", "a", 0, 5.0, 0.1), 0.01)

    [offer] = said(source.tick(state(resident(), free=1_000), 0.06), Offer)

    assert offer.to == "c"


def test_a_move_that_saves_less_than_it_costs_is_not_made() -> None:
    for left, offers in ((5.0, 0), (500.0, 1)):
        source, full = agent(), state(resident(left=left), free=1_000)
        source.tick(full, 0.0)
        source.receive(Bid("b", "a", 0, 4.0, 0.0), 0.01)
        assert len(said(source.tick(full, 0.06), Offer)) == offers


def test_offers_that_cross_end_both() -> None:
    source = agent()
    source.tick(state(resident(), free=10_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=10_000), 0.06)

    assert said(source.receive(Offer("b", "a", 3, 3, "other", LOAD), 0.07), Decline)
    assert source.receive(Decline("b", "a", 0), 0.08) == []
    assert not source.outgoing
    assert source.incoming.reserved_tokens == 0


# -- a transfer -------------------------------------------------------------------------------------------------------


def test_a_request_stands_still_from_its_first_commit_until_the_answer() -> None:
    source = agent()
    to_commit(source)

    assert source.over("r", 0.2) == []
    assert said(source.tick(state(), 0.4), Commit)
    assert said(source.tick(state(), 0.7), Commit)
    assert said(source.receive(Committed("b", "a", 0), 0.8), Drop)
    assert not source.outgoing


def test_a_refused_or_orphaned_commit_lets_the_request_run_on() -> None:
    refused, orphaned = agent(), agent()
    to_commit(refused)
    to_commit(orphaned)

    assert said(refused.receive(Refused("b", "a", 0), 0.2), Resume)
    assert said(orphaned.follow(replace(A_STAGE, pool=frozenset({"c"})), 0.2), Resume)


def test_a_plan_that_changes_does_not_end_a_transfer() -> None:
    source = agent()
    to_commit(source)

    assert source.follow(Membership(pool=A_STAGE.pool), 0.2) == []
    assert said(source.tick(state(), 0.5), Commit)


def test_an_acceptance_that_comes_too_late_is_cancelled() -> None:
    source = agent()
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=1_000), 0.06)

    assert said(source.receive(Accept("b", "a", 0), 5.0), Cancel)
    assert said(source.receive(Accept("b", "a", 0), 5.1), Cancel)


def test_a_request_that_ends_while_it_is_copied_frees_the_other_side() -> None:
    source = agent()
    source.tick(state(resident(), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0), 0.01)
    source.tick(state(resident(), free=1_000), 0.06)
    source.receive(Accept("b", "a", 0), 0.07)

    ended = source.over("r", 0.08)

    assert said(ended, Stop)
    assert said(ended, Cancel)


def test_kv_is_reserved_once_for_an_offer_that_comes_twice_and_freed_by_the_lease() -> None:
    target = agent()
    target.tick(state(), 0.0)
    offer = Offer("b", "a", 5, 5, "r", LOAD)

    outputs = target.receive(offer, 0.0) + target.receive(offer, 0.1) + target.tick(state(), 60.0)
    late = target.receive(offer, 61.0) + target.receive(Commit("b", "a", 5, 5), 62.0)

    assert len(said(outputs, Reserve)) == len(said(outputs, Free)) == 1
    assert len(said(outputs, Accept)) == 2
    assert [type(output) for output in late] == [Decline, Refused]


def test_a_cancel_that_overtakes_its_offer_is_remembered() -> None:
    target = agent()
    target.tick(state(), 0.0)

    target.receive(Cancel("b", "a", 5), 0.0)

    assert said(target.receive(Offer("b", "a", 5, 5, "r", LOAD), 0.1), Decline)


def test_an_offer_that_comes_again_after_its_adoption_takes_nothing_back() -> None:
    target = agent()
    target.tick(state(), 0.0)
    offer, commit = Offer("b", "a", 5, 5, "r", LOAD), Commit("b", "a", 5, 5)
    target.receive(offer, 0.0)

    answers = [target.receive(message, 0.1) for message in (commit, offer, commit, Cancel("b", "a", 5), commit)]

    assert [type(answer[-1]) for answer in answers if answer] == [Committed, Decline, Committed, Committed]


def test_strangers_are_not_heard() -> None:
    target = agent()
    target.tick(state(), 0.0)

    assert target.receive(Offer("mallory", "a", 0, 0, "r", LOAD), 0.0) == []
    assert target.receive(Offer("b", "someone-else", 0, 0, "r", LOAD), 0.0) == []


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=12), st.floats(0, 1))
def test_what_a_request_leaves_behind_is_the_step_without_it(lengths: list[float], alpha: float) -> None:
    model = replace(ENGINE, alpha=alpha)
    here = [Resident(str(number), length, 1, 1.0) for number, length in enumerate(lengths)]
    for number, relief in enumerate(reliefs_ms(model, here)):
        without = [length for other, length in enumerate(lengths) if other != number]
        assert relief == pytest.approx(step_ms(model, lengths) - step_ms(model, without), abs=1e-9)


def test_an_engine_with_a_long_line_bids_nothing_and_a_short_one_is_told() -> None:
    asked = Ask("b", "a", 7, 1000.0, LOAD)
    busy, less = agent(), agent()
    busy.tick(replace(state(), wait_ms=5_000.0), 0.0)
    less.tick(replace(state(), wait_ms=200.0), 0.0)
    assert not busy.receive(asked, 0.01)
    assert [bid.wait_ms for bid in said(less.receive(asked, 0.01), Bid)] == [200.0]


def test_a_wait_counts_once_against_what_each_token_saves() -> None:
    source = agent()
    source.tick(state(resident(left=100.0), free=1_000), 0.0)
    source.receive(Bid("b", "a", 0, 0.1, 0.0, wait_ms=1e6), 0.01)
    assert not said(source.tick(state(resident(left=100.0), free=1_000), 0.06), Offer)


def test_a_line_that_grew_while_kv_was_copied_refuses_the_commit() -> None:
    target = agent()
    target.tick(state(), 0.0)
    target.receive(Offer("b", "a", 3, 3, "r", LOAD), 0.01)
    target.tick(replace(state(), wait_ms=5_000.0), 0.1)
    out = target.receive(Commit("b", "a", 3, 3), 0.11)
    assert (said(out, Refused), said(out, Free)) == ([Refused("a", "b", 3)], [Free("b", 3)])
    assert said(target.receive(Commit("b", "a", 3, 3), 0.2), Refused)
