"""Label and field selectors, as they stand in a query string."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import bad_request

Selector = Callable[[Mapping[str, Any]], bool]
"""Says whether an object is selected."""

_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s*(?P<operator>==|!=|=)\s*(?P<value>[^\s!=,()]*)\s*$")
_PRESENT = re.compile(r"^\s*(?P<absent>!?)\s*(?P<key>[^\s!=,()]+)\s*$")
_COMMA = re.compile(r",(?![^(]*\))")
FIELDS = {"metadata.name", "metadata.namespace"}
POD_FIELDS = {"spec.nodeName", "status.phase", "status.podIP", "spec.serviceAccountName"}


def everything(obj: Mapping[str, Any]) -> bool:
    return True


def both(first: Selector, second: Selector) -> Selector:
    return lambda obj: first(obj) and second(obj)


def label_selector(text: str) -> Selector:
    """Parse a labelSelector. Raises ApiError 400."""
    terms = [_label_term(term) for term in _COMMA.split(text) if term.strip()]
    return lambda obj: all(term(obj["metadata"].get("labels") or {}) for term in terms)


def field_selector(text: str, resource: str = "") -> Selector:
    """Parse a fieldSelector. Raises ApiError 400, also for a field that no index of the resource has."""
    terms = []
    known = FIELDS | POD_FIELDS if resource == "pods" else FIELDS
    for term in filter(None, text.split(",")):
        match = _EQUAL.match(term)
        if match is None:
            raise bad_request(f"invalid field selector: {term}")
        path, wanted = match["key"], match["value"]
        if path not in known:
            raise bad_request(f"field label not supported: {path}")
        terms.append((tuple(path.split(".")), wanted, match["operator"] != "!="))
    return lambda obj: all((_at(obj, path) == wanted) is equal for path, wanted, equal in terms)


def _label_term(term: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET.match(term):
        key, inside = match["key"], match["operator"] == "in"
        values = {value.strip() for value in match["values"].split(",")}
        return lambda labels: (labels.get(key) in values) if inside else (labels.get(key) not in values)
    if match := _EQUAL.match(term):
        key, wanted, equal = match["key"], match["value"], match["operator"] != "!="
        return lambda labels: (labels.get(key) == wanted) is equal
    if match := _PRESENT.match(term):
        key, present = match["key"], not match["absent"]
        return lambda labels: (key in labels) is present
    raise bad_request(f"unable to parse requirement: {term}")


def _at(obj: Any, path: tuple[str, ...]) -> str:
    for name in path:
        obj = obj.get(name, "") if isinstance(obj, Mapping) else ""
    return str(obj)
