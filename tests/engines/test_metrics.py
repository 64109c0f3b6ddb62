"""What is read from an engine's /metrics page."""

import contextlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.engines.families import LOOK_AGAIN
from picker.engines.metrics import MAX_TEXT_BYTES, BadMetrics, EngineSample, LoraState, PageReader, parse
from picker.pool.view import EngineKind

GOLDEN = Path(__file__).parent / "golden"
KINDS = get_args(EngineKind)
GENERATED = re.compile(rb"(vllm:generation_tokens_total\{[^}]*\}) \S+")
LAST_NUMBER = re.compile(rb"\} \d+$", re.MULTILINE)
WAITING = re.compile(rb"(vllm:num_requests_waiting\{[^}]*\}) \S+")


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.txt").read_bytes()


def vllm(*lines: str) -> EngineSample:
    """A vLLM page with one running request and these lines."""
    return parse("\n".join(["vllm:num_requests_running 1", *lines, ""]).encode(), "vllm")


class TestKindsOfEngine:
    def test_vllm_with_data_parallel_engines_and_lora(self) -> None:
        assert parse(golden("vllm-lora-dp"), "vllm") == EngineSample(
            running=7.0,
            waiting=5.0,
            kv_usage=0.75,
            block_size=16.0,
            num_blocks=4096.0,
            lora=LoraState(4, ("sql", "chat"), ("law",)),
            prefix_queries=3000.0,
            prefix_hits=960.0,
            prompt_tokens=3000.0,
            generation_tokens=1_500_010.0,
        )

    def test_sglang_counts_ranks_that_share_requests_once(self) -> None:
        assert parse(golden("sglang"), "sglang") == EngineSample(
            running=7.0,
            waiting=3.0,
            kv_usage=0.91,
            block_size=64.0,
            num_blocks=2000.0,
            prefix_queries=5120.0,
            prefix_hits=2048.0,
            prompt_tokens=5120.0,
            generation_tokens=700.0,
        )

    def test_trtllm_serve(self) -> None:
        sample = parse(golden("trtllm-serve"), "trtllm-serve")
        assert sample == EngineSample(running=4.0, waiting=1.0, kv_usage=0.62, block_size=32.0, num_blocks=7000.0)

    def test_triton_with_tensorrt_llm_selects_by_label(self) -> None:
        sample = parse(golden("triton-tensorrt-llm"), "triton-tensorrt-llm")
        assert sample == EngineSample(running=6.0, waiting=2.0, kv_usage=0.4375, block_size=64.0, num_blocks=6400.0)

    def test_triton_gives_pending_requests_only_since_its_execution_count_never_falls(self) -> None:
        assert parse(golden("triton"), "triton") == EngineSample(waiting=4.0)

    def test_an_older_vllm_names_its_usage_otherwise(self) -> None:
        assert vllm("vllm:gpu_cache_usage_perc 0.5").kv_usage == 0.5


class TestSeries:
    def test_a_longer_metric_name_is_another_metric(self) -> None:
        assert vllm('vllm:num_requests_waiting_by_reason{reason="capacity"} 9').waiting is None

    def test_a_repeated_label_set_keeps_its_last_value(self) -> None:
        line = 'vllm:num_requests_waiting{engine="0"}'
        assert vllm(f"{line} 2", f"{line} 3").waiting == 3.0

    def test_timestamps_tabs_carriage_returns_and_a_missing_last_newline_are_fine(self) -> None:
        page = b'vllm:num_requests_running{engine="0"}\t2 1700000000000\r\nvllm:num_requests_waiting 3'
        assert parse(page, "vllm") == EngineSample(running=2.0, waiting=3.0)

    def test_label_values_may_hold_braces_commas_and_escaped_quotes(self) -> None:
        labels = r'{a="}, block_size=\"7\"",block_size="32",num_gpu_blocks="10"}'
        sample = vllm(f"vllm:cache_config_info{labels} 1")
        assert (sample.block_size, sample.num_blocks) == (32.0, 10.0)

    def test_blocks_not_known_yet_are_unknown(self) -> None:
        sample = vllm('vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1')
        assert (sample.block_size, sample.num_blocks) == (16.0, None)

    def test_usage_a_little_over_one_is_full(self) -> None:
        assert vllm("vllm:kv_cache_usage_perc 1.02").kv_usage == 1.0


class TestHostilePages:
    @pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e300", "x", "", "0x10", "9" * 5000])
    def test_a_reading_that_cannot_be_is_not_there(self, value: str) -> None:
        assert vllm(f"vllm:num_requests_waiting {value}").waiting is None

    def test_an_impossible_series_does_not_spoil_its_neighbours(self) -> None:
        sample = vllm('vllm:num_requests_waiting{engine="0"} NaN', 'vllm:num_requests_waiting{engine="1"} 2')
        assert sample.waiting == 2.0

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("page", [b"", b"\n\n", b"{}", b'{"error":"not found"}', b"<html></html>", b"\xff\xfe\x00"])
    def test_a_page_without_request_counts_is_refused(self, page: bytes, kind: EngineKind) -> None:
        with pytest.raises(BadMetrics, match="running or waiting"):
            parse(page, kind)

    def test_a_page_over_the_limit_is_refused_unread(self) -> None:
        with pytest.raises(BadMetrics, match="over the limit"):
            parse(b"vllm:num_requests_running 1\n" + b"#" * MAX_TEXT_BYTES, "vllm")

    def test_an_endless_line_is_no_sample(self) -> None:
        assert vllm('vllm:num_requests_waiting{a="' + "x" * 100_000 + '"} 3').waiting is None

    def test_adapters_of_the_newest_sample_win_and_a_bad_limit_is_zero(self) -> None:
        line = 'vllm:lora_requests_info{max_lora="%s",running_lora_adapters="%s",waiting_lora_adapters=""} %s'
        newest = vllm(line % ("4", "old", "10"), line % ("9" * 50, "new, , b", "30"), line % ("4", "bad", "NaN")).lora
        assert newest == LoraState(0, ("new", "b"), ())

    @given(st.binary(max_size=400), st.sampled_from(KINDS))
    def test_any_bytes_give_a_sample_or_a_refusal(self, page: bytes, kind: EngineKind) -> None:
        with contextlib.suppress(BadMetrics):
            assert isinstance(parse(page, kind), EngineSample)

    @given(st.data())
    def test_a_damaged_page_never_gives_an_impossible_number(self, data: st.DataObject) -> None:
        page = bytearray(golden("vllm-lora-dp"))
        for _ in range(data.draw(st.integers(1, 20))):
            at = data.draw(st.integers(0, len(page) - 1))
            page[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
        try:
            sample = parse(bytes(page), "vllm")
        except BadMetrics:
            return
        assert sample.running is None or 0 <= sample.running <= 1e6 * 4096
        assert sample.kv_usage is None or 0 <= sample.kv_usage <= 1
        assert sample.block_size is None or sample.block_size >= 1


FAMILIES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_requests_waiting_by_reason",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:prompt_tokens_total",
    "vllm:lora_requests_info",
    "process_open_fds",
    "python_gc_objects_collected_total",
)


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """A page of some families in one order, each with up to three series and comments of any length before it."""
    lines: list[str] = []
    for family in FAMILIES:
        series = draw(st.integers(0, 3))
        if series and draw(st.booleans()):
            lines.append("# HELP " + family + " " + "." * draw(st.sampled_from([0, 1, 9, 600])))
        lines += [
            f'{family}{{engine="{i}",block_size="{draw(st.integers(1, 20))}"}} {draw(st.integers(0, 12))}'
            for i in range(series)
        ]
    return ("\n".join(lines) + draw(st.sampled_from(["", "\n"]))).encode()


def read(reader: Callable[[bytes], EngineSample], page: bytes) -> EngineSample | None:
    try:
        return reader(page)
    except BadMetrics:
        return None


def ending(numbers: Iterator[int], _: re.Match[bytes]) -> bytes:
    return b"} %d" % next(numbers)


class TestPagesOneAfterTheOther:
    @settings(deadline=None)
    @given(st.lists(pages(), min_size=2, max_size=4))
    def test_are_soon_read_as_the_last_of_them_alone_whatever_changed(self, said: list[bytes]) -> None:
        reader = PageReader("vllm")
        for page in (*said, *[said[-1]] * LOOK_AGAIN):
            last = read(reader.read, page)
        assert last == read(lambda text: parse(text, "vllm"), said[-1])

    @given(pages(), st.lists(st.lists(st.integers(0, 2000), min_size=30, max_size=30), min_size=1, max_size=4))
    def test_with_the_same_lines_are_read_as_each_of_them_alone(self, page: bytes, said: list[list[int]]) -> None:
        reader = PageReader("vllm")
        for numbers in said:
            moved = LAST_NUMBER.sub(partial(ending, iter(numbers)), page)
            assert read(reader.read, moved) == read(lambda text: parse(text, "vllm"), moved)

    @given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 300)), min_size=2, max_size=6))
    def test_of_a_real_engine_may_move_by_any_number_of_digits(self, said: list[tuple[int, int]]) -> None:
        reader = PageReader("vllm")
        for tokens, waiting in said:
            page = GENERATED.sub(rb"\g<1> %d.0" % tokens, WAITING.sub(rb"\g<1> %d.0" % waiting, golden("vllm-0.32")))
            sample = reader.read(page)
            assert (sample.generation_tokens, sample.waiting) == (tokens, waiting)
            assert sample == parse(page, "vllm")

    def test_that_say_the_same_are_not_read_again(self) -> None:
        reader, page = PageReader("vllm"), golden("vllm-0.32-busy")
        assert reader.read(page) is reader.read(b"# a scrape later\n" + page)

    def test_are_each_bad_for_themselves(self) -> None:
        reader = PageReader("vllm")
        for _ in range(2):
            with pytest.raises(BadMetrics):
                reader.read(b"nothing 1\n")
            assert reader.read(b"vllm:num_requests_running 1\n").running == 1

    def test_may_tell_of_adapters_later(self) -> None:
        reader, page = PageReader("vllm"), golden("vllm-0.32")
        assert reader.read(page).lora is None
        line = b'vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql",waiting_lora_adapters=""} 1.7e9\n'
        assert reader.read(page + line).lora == LoraState(4, ("sql",), ())
