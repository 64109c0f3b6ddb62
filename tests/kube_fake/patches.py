"""How a PATCH changes an object: merge patch (RFC 7396), JSON patch (RFC 6902), strategic merge, server-side apply.

Server-side apply knows each manager's last applied object but no ownership among managers: nobody ever conflicts.
"""

from collections.abc import Mapping
from typing import Any

from .errors import ApiError, bad_request

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

LIST_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "ownerReferences": ("uid",),
    "conditions": ("type",),
    "ports": ("containerPort", "port"),
    "topologySpreadConstraints": ("topologyKey",),
    "subjects": (),
}
"""Key of the entries of lists that are merged entry by entry; other lists are replaced whole."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def strategic(target: Any, patch: Any, name: str = "") -> Any:
    """Like `merge`, but lists of keyed entries merge entry by entry; `$patch: delete` and `replace` are obeyed."""
    if isinstance(patch, list):
        key = _list_key(name, patch)
        return _strategic_list(target or [], patch, key) if key else patch
    if not isinstance(patch, dict):
        return patch
    directive = patch.get("$patch")
    body = {field: value for field, value in patch.items() if not field.startswith("$")}
    if directive == "replace":
        return body
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {field: value for field, value in result.items() if field in patch["$retainKeys"]}
    for field, value in body.items():
        if value is None:
            result.pop(field, None)
        else:
            result[field] = strategic(result.get(field), value, field)
    for field, gone in patch.items():
        if field.startswith("$deleteFromPrimitiveList/"):
            listed = field.partition("/")[2]
            result[listed] = [item for item in result.get(listed, []) if item not in gone]
    return result


def apply(current: Any, applied: Any, before: Any, name: str = "") -> Any:
    """Server-side apply: what the manager sets is set; what it set `before` and no longer does is removed."""
    if isinstance(applied, dict):
        held = before if isinstance(before, dict) else {}
        result = dict(current) if isinstance(current, dict) else {}
        for field in held.keys() - applied.keys():
            result.pop(field, None)
        for field, value in applied.items():
            result[field] = apply(result.get(field), value, held.get(field), field)
        return result
    if isinstance(applied, list) and (key := _list_key(name, applied)):
        now = {_key_of(entry, key): entry for entry in current or []}
        held = {_key_of(entry, key): entry for entry in before or []}
        wanted = {_key_of(entry, key): entry for entry in applied}
        kept = {at: entry for at, entry in now.items() if at in wanted or at not in held}
        kept.update({at: apply(now.get(at), entry, held.get(at)) for at, entry in wanted.items()})
        return list(kept.values())
    return applied


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. Raises ApiError 400 for what is no patch, 422 for a path or test that does not hold."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    root = {"": _copy(target)}
    for operation in operations:
        try:
            _operate(root, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise ApiError(422, "Invalid", f"the JSON patch cannot be applied: {error!r}") from None
    return root[""]


def _operate(root: Any, operation: Mapping[str, Any]) -> None:
    name, path = operation["op"], operation["path"]
    if name == "test":
        if _get(root, path) != operation["value"]:
            raise ValueError(f"test of {path} failed")
    elif name == "remove":
        _remove(root, path)
    elif name == "add":
        _add(root, path, operation["value"])
    elif name == "replace":
        _get(root, path)
        holder, at = _place(root, path)
        holder[int(at) if isinstance(holder, list) else at] = operation["value"]
    elif name in ("move", "copy"):
        value = _copy(_get(root, operation["from"]))
        if name == "move":
            _remove(root, operation["from"])
        _add(root, path, value)
    else:
        raise ValueError(f"no such operation: {name}")


def _place(root: Any, path: str) -> tuple[Any, str]:
    """The holder of the last part of a pointer, and that part."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
    if parts[0]:
        raise ValueError(f"no JSON pointer: {path}")
    holder = root
    for part in parts[:-1]:
        holder = holder[int(part) if isinstance(holder, list) else part]
    return holder, parts[-1]


def _get(root: Any, path: str) -> Any:
    holder, at = _place(root, path)
    return holder[int(at) if isinstance(holder, list) else at]


def _remove(root: Any, path: str) -> None:
    holder, at = _place(root, path)
    del holder[int(at) if isinstance(holder, list) else at]


def _add(root: Any, path: str, value: Any) -> None:
    holder, at = _place(root, path)
    if isinstance(holder, list):
        index = len(holder) if at == "-" else int(at)
        if not 0 <= index <= len(holder):
            raise IndexError(path)
        holder.insert(index, value)
    else:
        holder[at] = value


def _strategic_list(target: list[Any], patch: list[Any], key: str) -> list[Any]:
    entries = {_key_of(entry, key): entry for entry in target}
    for entry in patch:
        at = _key_of(entry, key)
        if entry.get("$patch") == "delete":
            entries.pop(at, None)
        else:
            entries[at] = strategic(entries.get(at), entry)
    return list(entries.values())


def _list_key(name: str, entries: list[Any]) -> str:
    """The field by which these entries merge, empty for a list that is replaced."""
    for key in LIST_KEYS.get(name, ()):
        if all(isinstance(entry, dict) and key in entry for entry in entries):
            return key
    return ""


def _key_of(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else entry


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(each) for name, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value
