"""Endpoints from a file or from the command line, for pools that no Kubernetes keeps.

endpoints:
  - address: 10.0.0.1:8000          # serves requests; the rest is optional
    name: pod-a                     # default: the address
    engine: vllm                    # vllm, sglang, trtllm-serve, triton-tensorrt-llm, triton
    labels: {class: a100}
    metrics_address: 10.0.0.1:8000  # default: the address; null where there is none
    kv_events: tcp://10.0.0.1:5557
    kv_replay: tcp://10.0.0.1:5558
"""

import asyncio
import ipaddress
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import UNSET, Meta, UnsetType

from picker.pool.view import Endpoint, EngineKind

MAX_FILE_BYTES = 1 << 20
MAX_ENDPOINTS = 8192
MAX_DEPTH = 8

_Short = Annotated[str, Meta(max_length=253)]
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class BadSource(Exception):
    """The endpoints cannot be read; the message says where and why."""


class _Wrong(Exception):
    """What YAML lets pass and we do not: line and reason."""


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    name: _Short = ""
    engine: EngineKind = "vllm"
    labels: Annotated[dict[_Short, _Short], Meta(max_length=64)] = {}
    metrics_address: str | UnsetType | None = UNSET
    kv_events: str | None = None
    kv_replay: str | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    endpoints: Annotated[list[Any], Meta(max_length=MAX_ENDPOINTS)]


def parse_list(text: str) -> list[Endpoint]:
    """Endpoints of `ip:port,ip:port`. Raises BadSource naming the wrong part; none at all is wrong too.

    >>> [e.address for e in parse_list("127.0.0.1:8000, [::1]:8001")]
    ['127.0.0.1:8000', '[::1]:8001']
    """
    parts = [part.strip() for part in text.split(",", MAX_ENDPOINTS)]
    if len(parts) > MAX_ENDPOINTS:
        raise BadSource(f"more than {MAX_ENDPOINTS} endpoints")
    return _endpoints([{"address": part} for part in parts], [f"endpoint {i + 1}" for i in range(len(parts))])


def parse_file(text: bytes, name: str = "endpoints") -> list[Endpoint]:
    """Endpoints of a YAML or JSON file (see the head of this module); an empty list is an empty pool.

    Raises BadSource as `name:line: endpoints[i].field: reason`; a JSON file (`name` ends in .json) gives no line.
    """
    if len(text) > MAX_FILE_BYTES:
        raise BadSource(f"{name}: over the limit of {MAX_FILE_BYTES} bytes")
    try:
        data, lines = (msgspec.json.decode(text), []) if name.endswith(".json") else _yaml(text)
        entries = msgspec.convert(data, _File).endpoints
    except _Wrong as error:
        raise BadSource(f"{name}:{error.args[0]}: {error.args[1]}") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadSource(f"{name}{line}: {error.problem or error.context}") from None
    except (msgspec.MsgspecError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadSource(f"{name}: {_reason(error).lstrip('.: ')}") from None
    places = [f"{name}:{line}: endpoints[{i}]" for i, line in enumerate(lines)]
    return _endpoints(entries, places or [f"{name}: endpoints[{i}]" for i in range(len(entries))])


class FileSource:
    """A file of endpoints, read again when it changes. A change counts once the file has rested for one look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, ...] = ()
        self._seen: tuple[int, ...] = ()

    def load(self) -> list[Endpoint]:
        """Read the file now. Raises BadSource."""
        self._seen = self._read = self._mark()
        try:
            if self._read and not stat.S_ISREG(self._path.stat().st_mode):
                raise BadSource(f"{self._path}: not a regular file")
            with self._path.open("rb") as file:
                return parse_file(file.read(MAX_FILE_BYTES + 1), str(self._path))
        except OSError as error:
            raise BadSource(f"{self._path}: {error.strerror or error}") from None

    async def watch(
        self,
        publish: Callable[[list[Endpoint]], None],
        report: Callable[[str], None],
        every_s: float = 1.0,
    ) -> None:
        """Publish each new version until cancelled; report a broken one, once, and keep what was published before."""
        while True:
            await asyncio.sleep(every_s)
            mark = self._mark()
            settled, self._seen = mark == self._seen, mark
            if not settled or mark == self._read:
                continue
            try:
                endpoints = await asyncio.to_thread(self.load)
            except BadSource as error:
                report(str(error))
            else:
                publish(endpoints)

    def _mark(self) -> tuple[int, ...]:
        """What changes when the file does; empty while it cannot be seen."""
        try:
            seen = os.stat(self._path)
        except OSError:
            return ()
        return (seen.st_mtime_ns, seen.st_size, seen.st_ino, seen.st_dev)


def _yaml(text: bytes) -> tuple[Any, list[int]]:
    """The document, and the line of each item of `endpoints`."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:  # the composer recurses in C: a deep document would end the process
            raise _Wrong(_line(event), "nested too deeply")
        if isinstance(event, yaml.AliasEvent):
            raise _Wrong(_line(event), "aliases are not allowed")
    loader = yaml.CSafeLoader(text)
    try:
        root = loader.get_single_node()
        lines = _lines(root)
        return (loader.construct_document(root) if root is not None else None), lines
    finally:
        loader.dispose()


def _line(part: yaml.Event | yaml.Node) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1


def _lines(root: yaml.Node | None) -> list[int]:
    """Lines of the items of `endpoints`. Raises on a repeated key, of which YAML would silently keep the last."""
    lines: list[int] = []
    todo = [root] if root is not None else []
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.SequenceNode):
            todo.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.value in keys:
                    problem = f"repeated key {key.value!r}" if isinstance(key, yaml.ScalarNode) else "key is no text"
                    raise _Wrong(_line(key), problem)
                keys.add(key.value)
                todo.append(value)
                if node is root and key.value == "endpoints" and isinstance(value, yaml.SequenceNode):
                    lines = [_line(item) for item in value.value]
    return lines


def _endpoints(entries: list[Any], places: list[str]) -> list[Endpoint]:
    """Check every entry; `places` names each for the error."""
    found: dict[str, Endpoint] = {}
    for entry, place in zip(entries, places, strict=True):
        try:
            endpoint = _endpoint(msgspec.convert(entry, _Entry))
        except msgspec.ValidationError as error:
            raise BadSource(f"{place}{_reason(error)}") from None
        except ValueError as error:
            raise BadSource(f"{place}.{error}") from None
        if endpoint.address in found:
            raise BadSource(f"{place}.address: {endpoint.address} is listed twice")
        found[endpoint.address] = endpoint
    return list(found.values())


def _endpoint(entry: _Entry) -> Endpoint:
    """Raises ValueError as `field: reason`."""
    address = _ip_port(entry.address)
    if entry.metrics_address is UNSET:
        metrics: str | None = address
    else:
        metrics = None if entry.metrics_address is None else _host_port(entry.metrics_address, "metrics_address")
    return Endpoint(
        address=address,
        name=entry.name or address,
        engine=entry.engine,
        labels=entry.labels,
        metrics_address=metrics,
        kv_events=_zmq(entry.kv_events, "kv_events"),
        kv_replay=_zmq(entry.kv_replay, "kv_replay"),
    )


def _ip_port(text: str) -> str:
    """The address as Envoy writes it: a plain IPv4 or a bracketed, shortest IPv6 literal, and the port."""
    host, port = _split(text, "address")
    try:
        ip = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except ValueError:
        raise ValueError(f"address: {_quoted(text)} is not ip:port (IPv6 in brackets)") from None
    if (ip.version == 6) != host.startswith("[") or getattr(ip, "scope_id", None):
        raise ValueError(f"address: {_quoted(text)} is not ip:port (IPv6 in brackets, without a zone)")
    if ip.is_unspecified or ip.is_multicast:
        raise ValueError(f"address: {ip} is no address of one endpoint")
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _host_port(text: str, field: str) -> str:
    host, port = _split(text, field)
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:].removesuffix(']')).compressed}]:{port}"
        except ValueError:
            raise ValueError(f"{field}: {_quoted(text)} is not host:port") from None
    if not _HOST.fullmatch(host):
        raise ValueError(f"{field}: {_quoted(text)} is not host:port")
    return f"{host}:{port}"


def _zmq(text: str | None, field: str) -> str | None:
    if text is None:
        return None
    if not text.startswith("tcp://"):
        raise ValueError(f"{field}: {_quoted(text)} is not tcp://host:port")
    return "tcp://" + _host_port(text.removeprefix("tcp://"), field)


def _split(text: str, field: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or len(text) > 300 or not port.isascii() or not port.isdigit() or len(port) > 5:
        raise ValueError(f"{field}: {_quoted(text)} has no host:port")
    if not 1 <= int(port) <= 65535:
        raise ValueError(f"{field}: port {port} is not in 1..65535")
    return host, int(port)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _reason(error: Exception) -> str:
    """msgspec's message with the path first: `.address: Expected ...`."""
    reason, _, path = " ".join(str(error).split()).partition(" - at `$")
    return f"{path.removesuffix('`')}: {reason}"
