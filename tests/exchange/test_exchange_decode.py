"""What is read off a message's bytes is what protobuf reads in them."""

from ext_proc_messages import FDS, NONE, add_metadata, announced
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from picker.exchange import decode
from picker.exchange.decode import BodyMode
from picker.proto.ext_proc_pb2 import HeaderMap, HeaderValue, HttpBody, HttpHeaders
from picker.proto.ext_proc_pb2 import ProcessingRequest as Said

# Lengths whose varints have one, two, three and four bytes.
sizes = st.one_of(st.integers(0, 300), st.sampled_from([16_383, 16_384, 62_000, 2_097_151, 2_097_152]))
pieces = st.builds(HttpBody, body=st.builds(bytes, sizes), end_of_stream=st.booleans())
contexts = st.dictionaries(
    st.sampled_from(["envoy.lb", "other"]), st.fixed_dictionaries({"key": st.text(max_size=200)})
)
Context = dict[str, dict[str, str]]


def said(part: str, piece: HttpBody, context: Context) -> bytes:
    message = Said(request_body=piece) if part == "request_body" else Said(response_body=piece)
    message.metadata_context.SetInParent()
    add_metadata(message, context)
    return message.SerializeToString()


@given(st.sampled_from(["request_body", "response_body"]), pieces, contexts)
def test_a_piece_of_a_body_is_read_whatever_the_metadata_behind_it(
    part: str, piece: HttpBody, context: Context
) -> None:
    assert decode.message(said(part, piece, context)) == decode.Heard(part, piece.body, piece.end_of_stream)


names = st.one_of(st.sampled_from(["x-a", "X-A", ":path", "cookie"]), st.text(max_size=300))
fields = st.lists(st.builds(HeaderValue, key=names, value=st.binary(max_size=9), raw_value=st.binary(max_size=300)))


def opening(fields: list[HeaderValue], end: bool, contexts: Context, mode: BodyMode | None) -> bytes:
    headers = HttpHeaders(headers=HeaderMap(headers=fields), end_of_stream=end)
    message = Said(request_headers=headers, protocol_config=announced(mode))
    message.metadata_context.SetInParent()
    add_metadata(message, contexts)
    return message.SerializeToString()


def joined(sent: HeaderMap) -> dict[str, str]:
    """Values by lower-case name, those of one name with commas between them."""
    found: dict[str, list[str]] = {}
    for field in sent.headers:
        found.setdefault(field.key.lower(), []).append((field.raw_value or field.value).decode("utf-8", "replace"))
    return {name: ", ".join(values) for name, values in found.items()}


@given(fields, st.booleans(), contexts, st.sampled_from([None, NONE, FDS]))
def test_request_headers_are_read_whatever_stands_behind_them(
    fields: list[HeaderValue], end: bool, context: Context, mode: BodyMode | None
) -> None:
    heard = decode.message(opening(fields, end, context, mode))
    modes = None if mode is None else (mode, 0)
    assert heard == decode.Heard("request_headers", b"", end, joined(HeaderMap(headers=fields)), modes=modes)


@given(fields, st.integers(0), st.integers(0, 255))
def test_damaged_request_headers_are_read_as_protobuf_reads_them(
    fields: list[HeaderValue], place: int, byte: int
) -> None:
    whole = opening(fields, True, {}, FDS)
    place %= len(whole)
    data = whole[:place] + bytes((byte,)) + whole[place + 1 :]
    heard = decode.message(data)
    try:
        message = Said.FromString(data)
    except DecodeError:
        assert heard is None or heard.part.endswith("body")
        return
    assert heard is not None
    assert heard.part == (message.WhichOneof("request") or "")
    if heard.part == "request_headers":
        sent = message.request_headers
        assert (heard.headers, heard.end) == (joined(sent.headers), sent.end_of_stream)


def test_headers_that_reach_beyond_what_holds_them_are_no_message() -> None:
    whole = opening([HeaderValue(key=":path", raw_value=b"/v1")], False, {}, FDS)
    assert decode.message(whole[:1] + b"\x02" + whole[2:]) is None


def test_the_subset_that_a_gateway_restricts_a_request_to_is_read_behind_its_headers() -> None:
    hint = {"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": "10.0.0.1:80, 10.0.0.2:80"}}
    heard = decode.message(opening([], False, hint, FDS))
    assert heard is not None
    assert (heard.subset, heard.modes) == (("10.0.0.1:80", "10.0.0.2:80"), (4, 0))


@given(pieces)
def test_a_mode_announced_beside_a_body_is_heard(piece: HttpBody) -> None:
    heard = decode.message(Said(response_body=piece, protocol_config=announced(NONE, FDS)).SerializeToString())
    assert heard is not None
    assert heard.modes == (0, 4)


@given(pieces, pieces)
def test_of_a_part_that_is_said_twice_protobuf_has_the_last_word(first: HttpBody, second: HttpBody) -> None:
    both = Said(response_body=first).SerializeToString() + Said(response_body=second).SerializeToString()
    merged = Said.FromString(both).response_body
    assert decode.message(both) == decode.Heard("response_body", merged.body, merged.end_of_stream)


@given(st.one_of(st.binary(max_size=40), st.builds(lambda rest: b"\x2a" + rest, st.binary(max_size=12))))
@example(b"")
@example(b"\x2a")
@example(b"\x2a\x03\x0a\x02x")
@example(b"\x2a\x80\x80\x80\x00")
@example(b"\x2a\x02\x10\x01\x42\x05")
def test_any_bytes_are_read_as_protobuf_reads_them(data: bytes) -> None:
    heard = decode.message(data)
    try:
        message = Said.FromString(data)
    except DecodeError:
        # Metadata that we skip may be damaged without harm.
        assert heard is None or b"\x42" in data
        return
    part = message.WhichOneof("request") or ""
    assert heard is not None
    assert heard.part == part
    if part in ("request_body", "response_body"):
        piece = getattr(message, part)
        assert (heard.body, heard.end) == (piece.body, piece.end_of_stream)
