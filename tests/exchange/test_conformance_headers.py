"""The two headers of the gateway conformance suite: one steers a request, one says who served it."""

import pytest
from ext_proc_messages import POST, Metadata, forwarded, replies, request_headers, response_headers, set_headers
from hypothesis import given
from hypothesis import strategies as st

from picker.exchange.events import RequestArrived
from picker.exchange.machine import Exchange, ExchangeSettings
from picker.exchange.selection import narrowed, selected

STEERED = ExchangeSettings(selection_header="test-epp-endpoint-selection")
SERVED = ExchangeSettings(served_header="x-conformance-test-served-endpoint")
HINT: Metadata = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": ["10.0.0.1:3000", "10.0.0.2:3000"]}}

names = st.builds("10.0.0.{}{}".format, st.integers(1, 4), st.sampled_from(["", ":3000", ":3002"]))
restrictions = st.none() | st.lists(names, max_size=4).map(tuple)


def subset(settings: ExchangeSettings, value: str, metadata: Metadata | None = None) -> object:
    headers = {**POST, "test-epp-endpoint-selection": value}
    (event,) = Exchange(settings).receive(request_headers(headers, end=True, metadata=metadata))
    assert isinstance(event, RequestArrived)
    return event.subset


def test_the_steering_header_has_no_power_unless_it_is_turned_on() -> None:
    assert subset(ExchangeSettings(), "10.0.0.1") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.0.0.1, 10.0.0.2:3002", ("10.0.0.1", "10.0.0.2:3002")),
        ("fd00::1,[fd00::2]:3000", ("[fd00::1]", "[fd00::2]:3000")),
        ("", None),
        (" , ", None),
    ],
)
def test_a_request_is_steered_to_the_endpoints_of_its_header(value: str, expected: object) -> None:
    assert subset(STEERED, value) == expected


def test_steering_does_not_reach_beyond_the_gateways_subset() -> None:
    assert subset(STEERED, "10.0.0.2,10.0.0.3", HINT) == ("10.0.0.2:3000",)
    assert subset(STEERED, "10.0.0.9", HINT) == ()


def reaches(restriction: tuple[str, ...] | None) -> set[str]:
    """The endpoints that a restriction leaves of a pool of four pods with two ports each."""
    pool = {f"10.0.0.{pod}:{port}" for pod in range(1, 5) for port in (3000, 3002)}
    return {each for each in pool if restriction is None or {each, each.partition(":")[0]} & set(restriction)}


@given(restrictions, restrictions)
def test_two_restrictions_leave_what_both_leave(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> None:
    assert reaches(narrowed(one, other)) == reaches(one) & reaches(other)


@given(st.text())
def test_any_text_is_a_restriction_or_none(value: str) -> None:
    assert selected(value) is None or all(selected(value) or ())


@pytest.mark.parametrize(
    ("metadata", "value"),
    [
        ({"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.2:8000"}}, "10.0.0.2:8000"),
        (None, "fail: the proxy does not say who served"),
    ],
)
def test_the_client_is_told_who_served_and_a_proxy_that_keeps_silent_fails(
    metadata: Metadata | None, value: str
) -> None:
    exchange = forwarded(exchange=Exchange(SERVED))
    exchange.receive(response_headers(metadata=metadata))
    mutation = replies(exchange)[0].response_headers.response.header_mutation
    assert set_headers(mutation) == {"x-conformance-test-served-endpoint": value}
