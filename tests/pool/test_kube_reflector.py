"""A mirror of a collection: whatever happens on the way, it ends as the server's own, with no event lost or doubled."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kube_model import Collection, bookmark, event, gone, read_thing, thing

from picker.pool.kube import reflector as kube
from picker.pool.kube.lines import Lines
from picker.pool.kube.reflector import Change, Failure, List, Reflector, Wait, Watch


def mirror(**settings: bool) -> Reflector[object]:
    return Reflector(read_thing, lambda: 0.0, **settings)


def page(*things: dict[str, Any], version: int = 10, proceed: str | None = None) -> bytes:
    meta = {"resourceVersion": str(version)} | ({"continue": proceed} if proceed else {})
    return json.dumps({"metadata": meta, "items": list(things)}).encode()


def take(reflector: Reflector[object], body: bytes) -> list[Change[object]]:
    for _ in reflector.page(body):
        pass
    return reflector.changes()


def listed(*things: dict[str, Any], **settings: bool) -> Reflector[object]:
    reflector = mirror(**settings)
    take(reflector, page(*things))
    return reflector


class AnyInterleaving(RuleBasedStateMachine):
    """The server's objects change, its answers come in pieces, break off or are refused, in any order."""

    names = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.server, self.reflector = Collection(), mirror()
        self.mirrored: dict[str, object] = {}
        self.heard: list[Change[object]] = []
        self.stream, self.at = False, 0
        self.stale = False

    def settle(self) -> None:
        for change in self.reflector.changes():
            self.heard.append(change)
            if change.value is None:
                self.mirrored.pop(change.name, None)
            else:
                self.mirrored[change.name] = change.value

    @rule(name=names, value=st.sampled_from([1, 2, 3, "bad"]))
    def put(self, name: str, value: object) -> None:
        self.server.put(name, value)

    @precondition(lambda self: self.server.objects)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.server.delete(data.draw(st.sampled_from(sorted(self.server.objects))))

    @rule()
    def compact(self) -> None:
        self.server.compact()
        if self.stream and self.at < self.server.oldest:
            self.stale = True

    @rule(steps=st.integers(1, 4))
    def go_on(self, steps: int) -> None:
        """The reflector is given what it asks for, so many steps of it."""
        for _ in range(steps):
            self.step()

    @rule(status=st.sampled_from([None, 401, 429, 500, 503]))
    def fail(self, status: int | None) -> None:
        self.stream = False
        self.reflector.failed(Failure(status, "broke"))
        self.settle()

    @precondition(lambda self: self.stream)
    @rule(lived_s=st.sampled_from([0.0, 60.0]))
    def end(self, lived_s: float) -> None:
        self.stream = False
        self.reflector.ended(lived_s)

    @precondition(lambda self: self.stream and not self.stale)
    @rule()
    def mark(self) -> None:
        """A bookmark tells how far the stream has come."""
        if not self.pending():
            self.at = self.server.version
            assert self.reflector.line(bookmark(self.at))

    @precondition(lambda self: self.stream)
    @rule(line=st.sampled_from([b"{", b"[]", b'{"type":"ADDED","object":{}}', b'{"type":"ADDED"}', b"\xff"]))
    def garble(self, line: bytes) -> None:
        assert not self.reflector.line(line)
        self.stream = False
        self.settle()

    def pending(self) -> list[tuple[int, str, dict[str, Any]]]:
        return [found for found in self.server.log if found[0] > self.at]

    def step(self) -> None:
        if self.stream:
            if self.stale:
                assert not self.reflector.line(gone())
                self.stream, self.stale = False, False
            elif pending := self.pending():
                self.at, kind, found = pending[0]
                assert self.reflector.line(event(kind, found))
            self.settle()
            return
        match self.reflector.ask():
            case List(limit=limit, proceed=proceed):
                body = self.server.page(2 if limit else None, proceed)
                if body is None:
                    self.reflector.failed(Failure(410, "expired"))
                else:
                    for _ in self.reflector.page(body):
                        pass
            case Watch(resource_version=version):
                if self.server.since(version) is None:
                    self.reflector.failed(Failure(410, "expired"))
                else:
                    self.stream, self.at, self.stale = True, int(version), False
        self.settle()

    def teardown(self) -> None:
        for _ in range(200):
            if self.stream and not self.stale and not self.pending():
                break
            self.step()
        assert self.mirrored == self.server.values()

    @invariant()
    def no_change_is_told_twice(self) -> None:
        told: dict[str, Change[object]] = {}
        for change in self.heard:
            assert told.get(change.name, Change(change.name, None)) != change
            told[change.name] = change


AnyInterleaving.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAnyInterleaving = AnyInterleaving.TestCase


@given(
    happenings=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9)), max_size=30),
    drops=st.lists(st.integers(1, 4), min_size=64, max_size=64),
)
def test_through_any_number_of_broken_streams_each_event_is_told_once_and_in_order(
    happenings: list[tuple[str, int]], drops: list[int]
) -> None:
    server, reflector = Collection(), listed()
    for name, value in happenings:
        if value == 0 and name in server.objects:
            server.delete(name)
        else:
            server.put(name, value)
    for drop in drops:
        asked = reflector.ask()
        if isinstance(asked, Watch):
            missed = server.since(asked.resource_version)
            assert missed is not None
            for _, kind, found in missed[:drop]:
                reflector.line(event(kind, found))
            reflector.ended(0.0, Failure(None, "reset by peer"))
    told, last = list[Change[object]](), dict[str, Change[object]]()
    for _, kind, found in server.log:
        change = Change(found["metadata"]["name"], None if kind == "DELETED" else found["value"])
        if last.get(change.name) != change:
            told.append(change)
        last[change.name] = change
    assert reflector.changes() == told


def test_a_list_in_pages_is_taken_whole_and_watched_from_its_first_page_on() -> None:
    reflector = mirror()
    assert reflector.ask() == List(kube.PAGE)
    assert take(reflector, page(thing("a", 3, 1), version=10, proceed="t")) == []
    assert not reflector.synced
    assert reflector.ask() == List(kube.PAGE, "t")
    assert take(reflector, page(thing("b", 4, 2), version=12)) == [Change("a", 1), Change("b", 2)]
    assert reflector.synced
    assert reflector.ask() == Watch("10", 180)


def test_each_event_is_one_change_and_one_that_alters_nothing_is_none() -> None:
    reflector = listed(thing("a", 3, 1))
    for line in (
        event("MODIFIED", thing("a", 11, 2)),
        event("MODIFIED", thing("a", 12, 2)),
        event("ADDED", thing("b", 13, 5)),
        event("DELETED", thing("a", 14, 2)),
    ):
        assert reflector.line(line)
    assert reflector.changes() == [Change("a", 2), Change("b", 5), Change("a", None)]
    reflector.ended(60.0)
    assert reflector.ask() == Watch("14", 180)


def test_bookmarks_move_the_place_from_which_the_next_watch_goes_on() -> None:
    reflector = listed()
    reflector.line(bookmark(77))
    reflector.ended(60.0)
    assert reflector.ask() == Watch("77", 180)


@pytest.mark.parametrize("forget", [lambda r: r.line(gone()), lambda r: r.failed(Failure(410, "Gone"))])
def test_when_the_server_forgot_the_place_only_what_differs_is_a_change(
    forget: Callable[[Reflector[object]], object],
) -> None:
    reflector = listed(thing("a", 3, 1), thing("b", 4, 2), thing("c", 5, 3))
    forget(reflector)
    assert reflector.ask() == List(kube.PAGE)
    assert take(reflector, page(thing("a", 3, 1), thing("b", 21, 9), thing("d", 22, 4), version=30)) == [
        Change("c", None),
        Change("b", 9),
        Change("d", 4),
    ]


def test_a_server_that_forgets_every_list_at_once_is_not_asked_without_a_pause() -> None:
    reflector = listed()
    pauses = []
    for _ in range(5):
        reflector.failed(Failure(410, "Gone"))
        asked = reflector.ask()
        if isinstance(asked, Wait):
            pauses.append(asked.seconds)
        take(reflector, page())
    assert pauses == [1.0, 2.0, 4.0, 8.0]


def test_a_list_whose_pages_come_too_slowly_is_asked_for_whole() -> None:
    reflector = mirror()
    take(reflector, page(thing("a", 3, 1), proceed="t"))
    reflector.failed(Failure(410, "Gone"))
    assert reflector.ask() == List(None)
    assert take(reflector, page(thing("b", 3, 1))) == [Change("b", 1)]


@pytest.mark.parametrize("status", [None, 401, 403, 429, 500, 503])
def test_an_api_server_that_is_away_takes_nothing_from_the_mirror_and_is_asked_ever_more_rarely(
    status: int | None,
) -> None:
    reflector = listed(thing("a", 3, 1))
    waits = []
    for _ in range(9):
        reflector.failed(Failure(status, "no"))
        asked = reflector.ask()
        assert isinstance(asked, Wait)
        waits.append(asked.seconds)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert reflector.changes() == []
    assert "no" in reflector.trouble
    take(reflector, page(thing("a", 3, 1)))
    assert reflector.trouble == ""


def test_pauses_are_spread_and_the_servers_own_wish_is_met() -> None:
    reflector = Reflector(read_thing, lambda: 0.99)
    reflector.failed(Failure(None, "refused"))
    asked = reflector.ask()
    assert isinstance(asked, Wait)
    assert asked.seconds == pytest.approx(0.25, abs=0.01)
    reflector.failed(Failure(429, "slow down", retry_after_s=12.0))
    assert reflector.ask() == Wait(12.0)


def test_after_an_outage_the_watch_goes_on_where_it_was_and_no_list_is_needed() -> None:
    reflector = listed()
    for _ in range(10):
        reflector.failed(Failure(None, "refused"))
        reflector.ask()
    assert reflector.ask() == Watch("10", 180)


def test_a_place_that_the_server_keeps_refusing_is_given_up_for_a_list() -> None:
    reflector = listed()
    for _ in range(3):
        assert not reflector.line(event("ERROR", {"code": 500, "message": "etcd"}))
        reflector.ask()
    assert isinstance(reflector.ask(), List)


def test_a_kind_that_does_not_exist_is_empty_and_asked_for_now_and_then() -> None:
    reflector = mirror()
    reflector.failed(Failure(404, "page not found"))
    assert (reflector.synced, reflector.ask(), reflector.ask()) == (True, Wait(30.0), List(kube.PAGE))


def test_a_kind_that_goes_away_is_believed_to_have_gone_when_it_was_said_three_times() -> None:
    reflector, told = listed(thing("a", 3, 1)), []
    for _ in range(3):
        reflector.failed(Failure(404, "page not found"))
        told.append((reflector.changes(), reflector.ask()))
    assert told == [([], Wait(0.5)), ([], Wait(1.0)), ([Change("a", None)], Wait(30.0))]


@pytest.mark.parametrize(("needed", "synced"), [(True, False), (False, True)])
def test_what_may_not_be_seen_is_waited_for_only_if_it_is_needed(needed: bool, synced: bool) -> None:
    reflector = mirror(needed=needed)
    reflector.failed(Failure(403, "pods is forbidden"))
    assert (reflector.synced, reflector.trouble) == (synced, "403: pods is forbidden")


def test_a_watch_that_ends_at_once_is_not_opened_at_once_again() -> None:
    reflector = listed()
    reflector.ended(0.1)
    assert reflector.ask() == Wait(0.5)
    reflector.ended(60.0)
    assert isinstance(reflector.ask(), Watch)


def test_a_long_watch_that_broke_off_is_no_sign_of_an_outage() -> None:
    reflector = listed()
    for _ in range(8):
        reflector.ended(60.0, Failure(None, "reset by peer"))
        assert reflector.ask() == Wait(0.5)


def test_a_bad_object_is_left_out_and_told_once_until_it_is_good() -> None:
    reflector = listed(thing("a", 3, "bad"), thing("b", 4, 1))
    reflector.line(event("MODIFIED", thing("a", 11, "bad")))
    assert reflector.changes() == []
    reflector.line(event("MODIFIED", thing("a", 12, 7)))
    reflector.line(event("MODIFIED", thing("a", 13, "bad")))
    assert reflector.changes() == [Change("a", 7), Change("a", None, "value: is bad")]


def test_an_object_without_a_name_spoils_no_other() -> None:
    assert [change.name for change in take(mirror(), page({"metadata": {}}, thing("b", 4, 1)))] == ["", "b"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"metadata":{}}', b'{"metadata":{"resourceVersion":7}}'])
def test_a_list_that_cannot_be_read_is_a_failure(body: bytes) -> None:
    reflector = listed(thing("a", 3, 1))
    reflector.relist()
    assert take(reflector, body) == []
    assert isinstance(reflector.ask(), Wait)


def test_a_collection_without_bound_is_cut_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "MAX_OBJECTS", 2)
    reflector = listed(*(thing(name, 3, 1) for name in "abc"))
    assert {name for name in "abcd" if reflector.line(event("ADDED", thing(name, 11, 2)))} == set("abcd")
    assert reflector.changes() == [Change("a", 2), Change("b", 2)]


def test_to_forget_is_to_lose_everything_and_to_list_anew() -> None:
    reflector = listed(thing("a", 3, 1))
    reflector.forget()
    assert reflector.changes() == [Change("a", None)]
    assert take(reflector, page(thing("a", 3, 1))) == [Change("a", 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_whole_however_the_stream_is_cut(size: int) -> None:
    text, lines = b"one\n\ntwo\r\nthree\nfour", Lines()
    found = [line for at in range(0, len(text), size) for line in lines.feed(text[at : at + size])]
    assert [line.strip() for line in found] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("chunks", [[b"x" * 11], [b"x" * 6, b"x" * 6], [b"x" * 11 + b"\n"], [b"x" * 9, b"xx\n"]])
def test_a_line_without_end_is_refused(chunks: list[bytes]) -> None:
    lines = Lines(max_line=10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        [lines.feed(chunk) for chunk in chunks]
