"""What is made of an HTTP answer, however its bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.engines.page_answer import MAX_HEAD_BYTES, PageAnswer, ScrapeError

PAGE = b"vllm:num_requests_running 1\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\nContent-Type: text/plain\r\n\r\n" + PAGE
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nvllm:\r\n17\r\n" + PAGE[5:] + b"\r\n0\r\n\r\n"


def fed(*parts: bytes, limit: int = 1000) -> tuple[PageAnswer, bytes | None]:
    answer, page = PageAnswer(limit), None
    for part in parts:
        page = answer.feed(part)
    return answer, page


@pytest.mark.parametrize("said", [WHOLE, CHUNKED])
@given(data=st.data())
def test_a_page_is_the_same_wherever_it_is_cut(said: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=8)))
    parts = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True) if a < b]
    answer, page = fed(*parts)
    assert page == PAGE
    assert answer.keeps


@given(st.integers(0, len(WHOLE) - 1))
def test_before_its_last_byte_there_is_no_page(cut: int) -> None:
    answer, page = fed(WHOLE[:cut]) if cut else (PageAnswer(1000), None)
    assert page is None
    assert answer.begun == (cut > 0)
    with pytest.raises(ScrapeError, match="ended before the page"):
        answer.end()


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_a_page_without_a_length_ends_with_its_connection(version: bytes) -> None:
    answer, page = fed(version + b" 200 OK\r\n\r\n", PAGE)
    assert page is None
    assert answer.end() == PAGE


@pytest.mark.parametrize(("head", "keeps"), [(b"Connection: close\r\n", False), (b"", True)])
def test_whether_the_connection_may_be_kept_is_what_the_engine_says(head: bytes, keeps: bool) -> None:
    answer, page = fed(WHOLE.replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n"))
    assert page == PAGE
    assert answer.keeps is keeps


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "status 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n", "status 101"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "encoded page"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 2000, "over the limit of 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000, "over the limit of 1000 bytes"),
        (WHOLE + WHOLE, "more than one answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1), "header without end|over the limit"),
    ],
)
def test_anything_else_is_refused_in_words(said: bytes, reason: str) -> None:
    with pytest.raises(ScrapeError, match=reason):
        fed(said)


def test_framing_without_end_is_bounded_too() -> None:
    endless = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", *[b"x" * 1000] * 100]
    with pytest.raises(ScrapeError):
        fed(*endless)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_whatever_comes_is_a_page_within_the_limit_or_a_refusal(parts: list[bytes]) -> None:
    try:
        _, page = fed(*parts, limit=100)
    except ScrapeError:
        return
    assert page is None or len(page) <= 100
