import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.requests.headers import MAX_VALUE, hints, model_rewrite
from picker.requests.request import Hints


def test_new_names_are_read() -> None:
    asked = hints(
        {
            "x-request-id": "r1",
            "x-llm-d-inference-objective": "gold",
            "x-llm-d-inference-fairness-id": "tenant",
            "x-llm-d-slo-ttft-ms": "250",
            "x-llm-d-slo-tpot-ms": "12.5",
            "x-session-id": "s",
        }
    )
    assert asked == Hints("r1", "gold", "tenant", 250.0, 12.5, "s")


def test_old_names_are_read_and_new_ones_win() -> None:
    old = {
        "x-gateway-inference-objective": "old",
        "x-gateway-inference-fairness-id": "old",
        "x-slo-ttft-ms": "1",
        "x-slo-tpot-ms": "2",
    }
    assert hints(old) == Hints(objective="old", fairness_id="old", slo_ttft_ms=1.0, slo_tpot_ms=2.0)
    assert hints(old | {"x-llm-d-inference-objective": "new"}).objective == "new"


def test_a_model_rewrite_is_read_under_both_names() -> None:
    assert model_rewrite({"x-llm-d-model-name-rewrite": "b"}) == "b"
    assert model_rewrite({"x-gateway-model-name-rewrite": "b"}) == "b"
    assert model_rewrite({}) == ""


@pytest.mark.parametrize("text", ["", "nan", "inf", "-5", "0", "1e3", "1_0", "12 ms", "0x10", "9" * 40, "٣", "1,2"])
def test_a_number_that_makes_no_sense_is_no_number(text: str) -> None:
    assert hints({"x-slo-ttft-ms": text}).slo_ttft_ms is None


@pytest.mark.parametrize("text", ["x" * (MAX_VALUE + 1), "a\nb", "\x00", "   "])
def test_an_identifier_that_is_too_long_or_unprintable_is_none(text: str) -> None:
    assert hints({"x-request-id": text, "x-session-id": text}) == Hints()


@given(st.dictionaries(st.sampled_from(["x-request-id", "x-slo-ttft-ms", "session-id"]), st.text()))
def test_no_header_can_fail_a_request(headers: dict[str, str]) -> None:
    assert len(hints(headers).request_id) <= MAX_VALUE
