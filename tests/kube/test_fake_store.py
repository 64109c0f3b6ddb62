"""The fake's history: whoever follows it ends with what a list says."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.kube_fake.selectors import label_selector
from tests.kube_fake.store import Store

OF = ("", "pods")
NAMES = st.sampled_from("abc")
LABELS = st.dictionaries(st.sampled_from(["app", "role"]), st.sampled_from(["x", "y"]), max_size=2)
WRITES = st.lists(st.tuples(NAMES, st.none() | LABELS), max_size=30)


def wrote(store: Store, name: str, labels: dict[str, str] | None) -> None:
    if labels is not None or store.get(OF, ("", name)) is not None:
        store.write(OF, ("", name), None if labels is None else {"metadata": {"name": name, "labels": labels}})


def by_name(objects: Any) -> dict[str, Any]:
    return {obj["metadata"]["name"]: obj for obj in objects}


@given(WRITES, WRITES, st.sampled_from(["", "app=x", "app!=x,role", "app in (x, y)"]))
def test_a_list_and_the_events_since_give_the_state(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]], selector: str
) -> None:
    store, chosen = Store(), label_selector(selector)
    for write in before:
        wrote(store, *write)
    page = store.page(OF, "", chosen, 0)
    mirror = by_name(page.objects)
    for write in after:
        wrote(store, *write)
    for event in store.since(OF, page.version):
        match event.seen_through(chosen):
            case ("DELETED", obj):
                assert mirror.pop(obj["metadata"]["name"])
            case ("ADDED", obj):
                assert mirror.setdefault(obj["metadata"]["name"], obj) is obj
            case ("MODIFIED", obj):
                assert obj["metadata"]["name"] in mirror
                mirror[obj["metadata"]["name"]] = obj
    assert mirror == by_name(store.page(OF, "", chosen, 0).objects)


@given(WRITES, st.integers(1, 4))
def test_pages_put_together_are_the_list(writes: list[tuple[str, Any]], limit: int) -> None:
    store, chosen = Store(), label_selector("")
    for write in writes:
        wrote(store, *write)
    whole = store.page(OF, "", chosen, 0).objects
    page = store.page(OF, "", chosen, limit)
    found = list(page.objects)
    while page.token:
        page = store.next_page(page.token, limit)
        found += page.objects
    assert found == whole


@given(WRITES)
def test_versions_rise_with_every_write(writes: list[tuple[str, Any]]) -> None:
    store = Store()
    start = store.version
    for write in writes:
        wrote(store, *write)
    versions = [event.version for event in store.since(OF, start)]
    assert versions == sorted(set(versions))
    assert store.version == start + len(versions)
