"""One collection as an API server keeps it: what lists and watches answer. No sockets."""

import json
from typing import Any

from picker.pool.kube.objects import BadObject


def thing(name: str, version: int, value: object, uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version)}, "value": value}


def read_thing(raw: bytes) -> object:
    """What the tests mirror: any value but "bad"."""
    value = json.loads(raw)["value"]
    if value == "bad":
        raise BadObject("value: is bad")
    return value


class Collection:
    """Objects, the log of what happened to them, and how far back the log still goes."""

    def __init__(self) -> None:
        self.version = 10
        self.objects: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[int, str, dict[str, Any]]] = []
        self.oldest = 10
        self._uids = 0
        self._snapshots: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def put(self, name: str, value: object) -> None:
        old = self.objects.get(name)
        self._uids += old is None
        uid = old["metadata"]["uid"] if old else f"u{self._uids}"
        self.version += 1
        self.objects[name] = thing(name, self.version, value, uid)
        self.log.append((self.version, "MODIFIED" if old else "ADDED", self.objects[name]))

    def delete(self, name: str) -> None:
        self.version += 1
        gone = self.objects.pop(name)
        gone = gone | {"metadata": gone["metadata"] | {"resourceVersion": str(self.version)}}
        self.log.append((self.version, "DELETED", gone))

    def compact(self) -> None:
        """Forget the past: watches from there, and lists that were begun, are Gone."""
        self.oldest = self.version
        self._snapshots.clear()

    def page(self, limit: int | None, proceed: str) -> bytes | None:
        """A page, all pages as of the first one; None for 410."""
        if proceed and proceed not in self._snapshots:
            return None
        version, rest = self._snapshots.pop(proceed) if proceed else (self.version, [*self.objects.values()])
        page, rest = rest[:limit], rest[limit:] if limit else []
        token = f"{version}/{len(rest)}/{len(self._snapshots)}" if rest else ""
        if rest:
            self._snapshots[token] = version, rest
        meta = {"resourceVersion": str(version)} | ({"continue": token} if token else {})
        return json.dumps({"kind": "List", "metadata": meta, "items": page}).encode()

    def since(self, version: str) -> list[tuple[int, str, dict[str, Any]]] | None:
        """What happened after `version`; None where that is not known any more."""
        return None if int(version) < self.oldest else [event for event in self.log if event[0] > int(version)]

    def values(self) -> dict[str, object]:
        return {name: found["value"] for name, found in self.objects.items() if found["value"] != "bad"}


def event(kind: str, found: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": found}).encode()


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "Thing", "metadata": {"resourceVersion": str(version)}})


def gone() -> bytes:
    return event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
