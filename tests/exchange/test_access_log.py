"""Envoy's access log records, as a picker reads them."""

from google.protobuf.struct_pb2 import Struct
from hypothesis import example, given
from hypothesis import strategies as st

from picker.exchange.access_log import AccessRecord, Unread, decode
from picker.exchange.encode import Json
from picker.proto import access_log_pb2 as pb


def entry(kind: "pb.AccessLogType" = pb.DOWNSTREAM_END, flight: Json | None = "42") -> pb.HTTPAccessLogEntry:
    found = pb.HTTPAccessLogEntry()
    common = found.common_properties
    common.access_log_type = kind
    common.upstream_remote_address.socket_address.address = "10.0.0.2"
    common.upstream_remote_address.socket_address.port_value = 8000
    common.custom_tags["picker-first-body-byte-us"] = "125000"
    common.duration.FromMilliseconds(1500)
    metadata: dict[str, dict[str, Json | None]] = {
        "envoy.lb": {"picker-flight": flight},
        "picker.usage": {"prompt_tokens": 1100.0, "cached_tokens": 1024.0, "completion_tokens": 7.0},
    }
    for namespace, values in metadata.items():
        common.metadata.filter_metadata[namespace].update(values)
    found.response.response_code.value = 200
    return found


def message(*entries: pb.HTTPAccessLogEntry) -> bytes:
    return pb.StreamAccessLogsMessage(
        http_logs=pb.StreamAccessLogsMessage.HTTPAccessLogEntries(log_entry=entries)
    ).SerializeToString()


def test_a_record_tells_all_that_an_outcome_needs() -> None:
    (record,) = decode(message(entry()))
    assert record == AccessRecord(
        flight=42,
        ended=True,
        status=200,
        served="10.0.0.2:8000",
        ttft_s=0.125,
        duration_s=1.5,
        prompt_tokens=1100,
        cached_tokens=1024,
        completion_tokens=7,
    )
    assert record.complete


def test_a_report_of_a_running_answer_is_not_its_end() -> None:
    (record,) = decode(message(entry(pb.DOWNSTREAM_PERIODIC)))
    assert (record.ended, record.complete, record.ttft_s) == (False, False, 0.125)


def test_reports_on_upstream_attempts_are_left_out() -> None:
    kinds = (pb.UPSTREAM_END, pb.UPSTREAM_POOL_READY, pb.DOWNSTREAM_START, pb.DOWNSTREAM_END)
    assert [record.ended for record in decode(message(*[entry(kind) for kind in kinds]))] == [True]


def test_an_answer_cut_short_is_not_complete() -> None:
    cut = entry()
    cut.common_properties.response_flags.downstream_connection_termination = True
    (record,) = decode(message(cut))
    assert record.flags == ("downstream_connection_termination",)
    assert record.ended
    assert not record.complete


def test_what_is_not_told_is_none() -> None:
    (record,) = decode(message(pb.HTTPAccessLogEntry()))
    assert record == AccessRecord(flight=None, ended=True, status=0)
    assert not record.complete


def test_time_point_that_was_not_reached() -> None:
    unreached = entry()
    unreached.common_properties.custom_tags["picker-first-body-byte-us"] = "-"
    assert decode(message(unreached))[0].ttft_s is None


def test_a_flight_is_a_number_or_nothing() -> None:
    flights: list[Json | None] = ["7", "", "x", "-1", "٣", "9" * 40, 7.0, None, ["7"]]
    records = decode(message(*[entry(flight=flight) for flight in flights]))
    assert [record.flight for record in records] == [7, *[None] * 8]


def test_ipv6_addresses_are_bracketed() -> None:
    six = entry()
    six.common_properties.upstream_remote_address.socket_address.address = "fd00::2"
    assert decode(message(six))[0].served == "[fd00::2]:8000"


def test_impossible_token_counts_are_not_told() -> None:
    strange = entry()
    usage = Struct()
    usage.update({"prompt_tokens": float("nan"), "cached_tokens": -1, "completion_tokens": "12"})
    strange.common_properties.metadata.filter_metadata["picker.usage"].CopyFrom(usage)
    (record,) = decode(message(strange))
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (None, None, 12)


def test_messages_that_cannot_be_read_are_counted() -> None:
    unread = Unread()
    assert decode(b"\xff\xff", unread) == []
    assert unread.messages == 1


@given(st.binary(max_size=200))
@example(message(entry())[:-3])
@example(b"")
def test_hostile_bytes_never_raise(data: bytes) -> None:
    assert isinstance(decode(data), list)


@given(st.binary(min_size=1, max_size=4), st.integers(0, 400))
def test_damaged_messages_never_raise(damage: bytes, where: int) -> None:
    data = bytearray(message(entry(), entry()))
    data[where : where + len(damage)] = damage
    assert isinstance(decode(bytes(data)), list)
