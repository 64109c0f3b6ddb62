"""The protobuf envelope in which kubectl and helm create what they have types for.

Field numbers: k8s.io/apimachinery/pkg/runtime/generated.proto (Unknown), .../meta/v1/generated.proto (ObjectMeta),
k8s.io/api/core/v1/generated.proto (Secret, ConfigMap).
"""

import base64
from collections.abc import Iterator
from typing import Any

from .errors import bad_request, unsupported_media

KINDS = ("Secret", "ConfigMap", "Namespace", "ServiceAccount")
"""Of the last two only the metadata is read."""
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


def decode(body: bytes) -> dict[str, Any] | None:
    """The object as JSON would have it; None for a DeleteOptions.

    Raises ApiError 400 for bytes that are no envelope, 415 for kinds other than KINDS.
    """
    if not body.startswith(_MAGIC):
        raise bad_request("no Kubernetes protobuf envelope")
    try:
        return _object(body[len(_MAGIC) :])
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise bad_request(f"malformed protobuf: {error}") from None


def _object(body: bytes) -> dict[str, Any] | None:
    envelope = dict(_fields(body))
    kind = dict(_fields(envelope[1])).get(2, b"").decode()
    if kind == "DeleteOptions":
        return None
    if kind not in KINDS:
        raise unsupported_media(f"{CONTENT_TYPE} of {kind}")
    raw = list(_fields(envelope.get(2, b"")))
    single = dict(raw)
    obj: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": _metadata(single.get(1, b""))}
    if kind == "Secret":
        obj["data"] = {key: _b64(value) for key, value in _entries(raw, 2)}
        if 3 in single:
            obj["type"] = single[3].decode()
    elif kind == "ConfigMap":
        obj["data"] = {key: value.decode() for key, value in _entries(raw, 2)}
        if binary := {key: _b64(value) for key, value in _entries(raw, 3)}:
            obj["binaryData"] = binary
    return obj


def _metadata(raw: bytes) -> dict[str, Any]:
    fields = list(_fields(raw))
    single = dict(fields)
    texts = {1: "name", 2: "generateName", 3: "namespace", 5: "uid", 6: "resourceVersion"}
    meta: dict[str, Any] = {name: single[number].decode() for number, name in texts.items() if single.get(number)}
    for number, name in ((11, "labels"), (12, "annotations")):
        if entries := {key: value.decode() for key, value in _entries(fields, number)}:
            meta[name] = entries
    return meta


def _entries(fields: list[tuple[int, Any]], number: int) -> Iterator[tuple[str, bytes]]:
    """The entries of a map field."""
    for found, raw in fields:
        if found == number:
            entry = dict(_fields(raw))
            yield entry.get(1, b"").decode(), entry.get(2, b"")


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value): bytes of length-delimited fields, int of varints. Raises ValueError, IndexError."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield number, value
        elif wire == 2:
            size, at = _varint(raw, at)
            if at + size > len(raw):
                raise ValueError("truncated")
            yield number, raw[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("varint too long")


def _b64(value: bytes) -> str:
    return base64.b64encode(value).decode()
