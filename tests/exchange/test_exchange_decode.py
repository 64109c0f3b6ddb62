"""What is read off a message's bytes is what protobuf reads in them."""

from ext_proc_messages import Said, add_metadata
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from picker.exchange import decode
from picker.proto.ext_proc_pb2 import HttpBody

# Lengths whose varints have one, two, three and four bytes.
sizes = st.one_of(st.integers(0, 300), st.sampled_from([16_383, 16_384, 62_000, 2_097_151, 2_097_152]))
pieces = st.builds(HttpBody, body=st.builds(bytes, sizes), end_of_stream=st.booleans())
contexts = st.dictionaries(
    st.sampled_from(["envoy.lb", "other"]), st.fixed_dictionaries({"key": st.text(max_size=200)})
)


def said(part: str, piece: HttpBody, context: dict[str, dict[str, str]]) -> bytes:
    message = Said(**{part: piece})
    message.metadata_context.SetInParent()
    add_metadata(message, context)
    return message.SerializeToString()


@given(st.sampled_from(["request_body", "response_body"]), pieces, contexts)
def test_a_piece_of_a_body_is_read_whatever_the_metadata_behind_it(part, piece, context) -> None:
    assert decode.message(said(part, piece, context)) == decode.Heard(part, piece.body, piece.end_of_stream)


@given(pieces)
def test_a_mode_announced_beside_a_body_is_heard(piece) -> None:
    message = Said(response_body=piece)
    message.protocol_config.response_body_mode = 4
    assert decode.message(message.SerializeToString()).modes == (0, 4)


@given(pieces, pieces)
def test_of_a_part_that_is_said_twice_protobuf_has_the_last_word(first, second) -> None:
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
