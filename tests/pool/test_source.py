"""Endpoints from a file and from the command line."""

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.pool.source import MAX_FILE_BYTES, BadSource, FileSource, parse_file, parse_list
from picker.pool.view import Endpoint


def yaml(*entries: str) -> bytes:
    return "\n".join(["endpoints:", *(f"  - {entry}" for entry in entries)]).encode()


class TestList:
    def test_addresses_are_endpoints_scraped_where_they_serve(self) -> None:
        assert parse_list("127.0.0.1:8000, [0:0::1]:8001") == [
            Endpoint("127.0.0.1:8000", name="127.0.0.1:8000", metrics_address="127.0.0.1:8000"),
            Endpoint("[::1]:8001", name="[::1]:8001", metrics_address="[::1]:8001"),
        ]

    @pytest.mark.parametrize("text", ["", ",", "127.0.0.1:80,", "127.0.0.1:80,127.0.0.1:80"])
    def test_gaps_and_repeats_are_refused(self, text: str) -> None:
        with pytest.raises(BadSource, match="endpoint"):
            parse_list(text)

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "127.0.0.1:٨٠",
            "127.0.0.1:80 ",
            "127.0.0.1:80\r\nx-evil: 1",
            "010.0.0.1:80",
            "::1:80",
            "[::1%eth0]:80",
            "[127.0.0.1]:80",
            "[[::1]]:80",
            "localhost:80",
            "user@127.0.0.1:80",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "9" * 10_000 + ":80",
        ],
    )
    def test_what_envoy_could_not_dial_is_refused_with_its_place(self, address: str) -> None:
        with pytest.raises(BadSource, match=r"e\.json: endpoints\[0\]\.address: ") as refusal:
            parse_file(json.dumps({"endpoints": [{"address": address}]}).encode(), "e.json")
        assert len(str(refusal.value)) < 300

    @given(st.text(max_size=40))
    def test_any_text_gives_endpoints_or_a_refusal(self, text: str) -> None:
        with contextlib.suppress(BadSource):
            assert parse_list(text)


class TestFile:
    def test_every_field_is_read(self) -> None:
        text = b"""
endpoints:
  - address: 10.0.0.1:8000
    name: pod-a
    engine: sglang
    labels: {class: a100}
    metrics_address: metrics.svc:9000
    kv_events: tcp://10.0.0.1:5557
    kv_replay: tcp://[::1]:5558
"""
        assert parse_file(text) == [
            Endpoint(
                "10.0.0.1:8000",
                name="pod-a",
                engine="sglang",
                labels={"class": "a100"},
                metrics_address="metrics.svc:9000",
                kv_events="tcp://10.0.0.1:5557",
                kv_replay="tcp://[::1]:5558",
            )
        ]

    def test_json_is_read_under_either_name(self) -> None:
        text = b'{"endpoints":\n\t[{"address": "10.0.0.1:80", "metrics_address": null}]}'
        expected = [Endpoint("10.0.0.1:80", name="10.0.0.1:80")]
        assert parse_file(text, "e.json") == parse_file(text, "e.yaml") == expected

    def test_an_empty_list_is_an_empty_pool(self) -> None:
        assert parse_file(b"endpoints: []") == []

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (yaml("address: 10.0.0.1:80", "address: 5"), r"e:3: endpoints\[1\].address: Expected `str`"),
            (yaml("address: 10.0.0.1:80\n    adress: x"), r"e:2: endpoints\[0\]: .*unknown field `adress`"),
            (yaml("address: 10.0.0.1:80\n    address: 10.0.0.2:80"), "e:3: repeated key 'address'"),
            (yaml("address: 10.0.0.1:80", "address: 10.0.0.1:80"), r"e:3: endpoints\[1\].address: .*listed twice"),
            (yaml("{address: '10.0.0.1:80', engine: tgi}"), r"e:2: endpoints\[0\].engine: Invalid enum"),
            (yaml("{address: '10.0.0.1:80', metrics_address: 'a/b@c:80'}"), r"metrics_address: 'a/b@c:80' is not"),
            (yaml("{address: '10.0.0.1:80', kv_events: 'ipc:///x'}"), "kv_events: .* is not tcp://host:port"),
            (yaml("5"), r"e:2: endpoints\[0\]: Expected `object`"),
            (b"", "e: Expected `object`"),
            (b"endpoint: []", "unknown field `endpoint`"),
            (b"endpoints: [", r"e:\d: did not find"),
            (b"a: &a 1\nb: *a", "e:2: aliases"),
            (b"[" * 500_000, "e:1: nested too deeply"),
            (b"endpoints: [{address: 2001-99-99}]", "e: month"),
            (b"endpoints: [!!python/object:os.system x]", "e:1: could not determine a constructor"),
            (b"{[1]: 2}", "e:1: key is no text"),
            (b"\xff\xfe\x00", "e: "),
            (b"#" * (MAX_FILE_BYTES + 1), "e: over the limit"),
        ],
    )
    def test_a_mistake_is_told_with_its_place(self, text: bytes, reason: str) -> None:
        with pytest.raises(BadSource, match=reason):
            parse_file(text, "e")

    def test_a_deep_json_file_is_refused(self) -> None:
        with pytest.raises(BadSource, match=r"e\.json: "):
            parse_file(b"[" * 500_000, "e.json")

    @given(st.binary(max_size=200), st.sampled_from(["e.yaml", "e.json"]))
    def test_any_bytes_give_endpoints_or_a_refusal(self, text: bytes, name: str) -> None:
        with contextlib.suppress(BadSource):
            assert isinstance(parse_file(text, name), list)


class TestWatch:
    """The file is looked at every 5 ms here; each version has its own size, so coarse clocks do not hide a change."""

    async def follow(self, path: Path, *versions: bytes | None) -> list[str]:
        """What is published ("+" addresses) and reported ("!" reason) while the file becomes each version in turn."""
        source, said, heard = FileSource(path), [], asyncio.Event()
        source.load()

        def publish(endpoints: list[Endpoint]) -> None:
            said.append("+" + ",".join(e.address for e in endpoints))
            heard.set()

        def report(reason: str) -> None:
            said.append("!" + reason.removeprefix(str(path)))
            heard.set()

        watching = asyncio.create_task(source.watch(publish, report, every_s=0.005))
        for version in versions:
            heard.clear()
            if version is None:
                path.unlink()
            else:
                new = path.with_suffix(".new")
                new.write_bytes(version)
                os.replace(new, path)
            async with asyncio.timeout(10):
                await heard.wait()
        watching.cancel()
        return said

    async def test_a_new_version_is_published(self, tmp_path: Path) -> None:
        path = tmp_path / "e.yaml"
        path.write_bytes(yaml("address: 10.0.0.1:80"))
        assert await self.follow(path, yaml("address: 10.0.0.1:80", "address: 10.0.0.2:80")) == [
            "+10.0.0.1:80,10.0.0.2:80"
        ]

    async def test_a_broken_version_is_reported_once_and_the_next_good_one_is_taken(self, tmp_path: Path) -> None:
        path = tmp_path / "e.yaml"
        path.write_bytes(yaml("address: 10.0.0.1:80"))
        said = await self.follow(path, b"endpoints: 5", yaml("address: 10.0.0.22:80"))
        assert said == ["!: endpoints: Expected `array`, got `int`", "+10.0.0.22:80"]

    async def test_a_file_that_vanishes_and_returns(self, tmp_path: Path) -> None:
        path = tmp_path / "e.yaml"
        path.write_bytes(yaml("address: 10.0.0.1:80"))
        said = await self.follow(path, None, yaml("address: 10.0.0.22:80"))
        assert said == ["!: No such file or directory", "+10.0.0.22:80"]

    def test_what_is_no_file_is_refused_without_waiting_for_it(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadSource, match="not a regular file"):
            FileSource(tmp_path / "pipe").load()
        with pytest.raises(BadSource, match="No such file"):
            FileSource(tmp_path / "none").load()
