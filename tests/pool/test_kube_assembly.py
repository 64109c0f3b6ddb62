"""From objects to endpoints, priorities and rewrites."""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_objects import objective, pod, pool, raw, rewrite, to

from picker.pool.kube.access import Rule, rules, watched
from picker.pool.kube.assembly import Assembly
from picker.pool.kube.objects import read_objective, read_pod, read_pool, read_rewrite
from picker.pool.kube.reflector import Change
from picker.pool.kube.scope import KubeScope, label_selector
from picker.pool.view import Pool

T = TypeVar("T")
SCOPE = KubeScope("ns", pool="p")


def changed(read: Callable[[bytes], T], found: dict[str, Any]) -> Change[T]:
    return Change(found["metadata"]["name"], read(raw(found)))


class Server:
    """An assembly, fed with objects instead of changes."""

    def __init__(self, scope: KubeScope = SCOPE, *pools: dict[str, Any]) -> None:
        self.assembly = Assembly(scope)
        for found in pools:
            self.pool(found)

    def pool(self, found: dict[str, Any]) -> None:
        self.assembly.pool(changed(read_pool, found))

    def pods(self, *found: dict[str, Any]) -> "Server":
        for each in found:
            self.assembly.pod(changed(read_pod, each))
        return self

    def objective(self, found: dict[str, Any], source: int = 1) -> None:
        self.assembly.objective(changed(read_objective, found), source)

    def rewrite(self, found: dict[str, Any], source: int = 1) -> None:
        self.assembly.rewrite(changed(read_rewrite, found), source)

    def addresses(self) -> list[str]:
        return [endpoint.address for endpoint in self.assembly.directory().endpoints]


def test_a_pod_of_a_pool_with_one_port_is_one_endpoint_under_its_own_name() -> None:
    (endpoint,) = Server(SCOPE, pool()).pods(pod()).assembly.directory().endpoints
    assert (endpoint.address, endpoint.name, endpoint.uid) == ("10.0.0.1:8000", "a", "uid-a")
    assert (endpoint.metrics_address, endpoint.labels, endpoint.kv_events) == ("10.0.0.1:8000", {"app": "vllm"}, None)


def test_each_of_several_ports_is_an_endpoint_of_its_own() -> None:
    server = Server(SCOPE, pool(ports=(8000, 8002, 8004))).pods(pod(ip="fd00::1"))
    endpoints = server.assembly.directory().endpoints
    assert [(found.name, found.address) for found in endpoints] == [
        ("a-rank-0", "[fd00::1]:8000"),
        ("a-rank-1", "[fd00::1]:8002"),
        ("a-rank-2", "[fd00::1]:8004"),
    ]
    assert [found.metrics_address for found in endpoints] == [found.address for found in endpoints]


def test_inactive_ports_are_left_out_and_the_ranks_of_the_others_stay() -> None:
    server = Server(SCOPE, pool(ports=(8000, 8001, 8002)))
    server.pods(pod(annotations={"llm-d.ai/active-ports": "8002,8000,9999"}))
    names = [endpoint.name for endpoint in server.assembly.directory().endpoints]
    assert names == ["a-rank-0", "a-rank-2"]


def test_pods_that_do_not_serve_or_are_not_selected_are_no_endpoints() -> None:
    server = Server(SCOPE, pool()).pods(
        pod("a", ready=False), pod("b", deleting=True), pod("c", ip=""), pod("d", labels={"app": "other"})
    )
    assert server.addresses() == []


def test_kv_events_are_where_the_pod_says_else_where_the_scope_says_one_port_a_rank() -> None:
    server = Server(KubeScope("ns", pool="p", kv_events_port=5557), pool(ports=(8000, 8001)))
    server.pods(pod("a"), pod("b", ip="10.0.0.2", annotations={"picker.dev/kv-events-port": "7000"}))
    assert [endpoint.kv_events for endpoint in server.assembly.directory().endpoints] == [
        "tcp://10.0.0.1:5557",
        "tcp://10.0.0.1:5558",
        "tcp://10.0.0.2:7000",
        "tcp://10.0.0.2:7001",
    ]


def test_another_selector_and_other_ports_hold_at_once_for_the_pods_that_are_known() -> None:
    server = Server(SCOPE, pool()).pods(pod("a"), pod("b", ip="10.0.0.2", labels={"app": "vllm", "tier": "x"}))
    server.pool(pool(selector={"tier": "x"}, ports=(9000,)))
    assert server.addresses() == ["10.0.0.2:9000"]


def test_a_deleted_pool_takes_everything_along_and_gives_it_back_when_it_returns() -> None:
    server = Server(SCOPE, pool()).pods(pod())
    server.objective(objective(priority=3))
    server.assembly.pool(Change("p", None))
    gone = server.assembly.directory()
    assert (gone.pool_exists, gone.endpoints, gone.objectives, server.assembly.selector) == (False, (), {}, None)
    server.pool(pool())
    assert server.addresses() == ["10.0.0.1:8000"]


def test_a_pool_that_becomes_unusable_stays_as_it_was() -> None:
    server = Server(SCOPE, pool()).pods(pod())
    server.assembly.pool(Change("p", None, problem="spec: no ports"))
    assert server.addresses() == ["10.0.0.1:8000"]


def test_another_pool_of_the_namespace_changes_nothing() -> None:
    server = Server(SCOPE, pool("q", ports=(1,)), pool()).pods(pod())
    assert server.addresses() == ["10.0.0.1:8000"]


def test_a_new_pod_on_a_reused_ip_is_a_new_endpoint_even_under_the_old_name() -> None:
    slots = Pool()
    server = Server(SCOPE, pool()).pods(pod(uid="first"))
    slots.replace(server.assembly.directory().endpoints)
    change = slots.replace(server.pods(pod(uid="second")).assembly.directory().endpoints)
    assert [endpoint.uid for _, endpoint in change.removed] == ["first"]
    assert [endpoint.uid for _, endpoint in change.added] == ["second"]


def test_of_two_pods_with_one_ip_the_younger_has_it() -> None:
    old, young = pod("old", created="2026-01-01T00:00:00Z"), pod("young", created="2026-01-02T00:00:00Z")
    for order in ((old, young), (young, old)):
        (endpoint,) = Server(SCOPE, pool()).pods(*order).assembly.directory().endpoints
        assert endpoint.name == "young"


def test_only_what_alters_the_directory_is_a_change() -> None:
    server = Server(SCOPE, pool()).pods(pod())
    server.assembly.directory()
    server.pods(pod(annotations={"heartbeat": "1"}), pod("idle", ready=False))
    assert not server.assembly.changed
    server.pods(pod(ready=False))
    assert server.assembly.changed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.booleans(), st.booleans()), max_size=12))
def test_endpoints_are_those_of_the_last_word_on_each_pod(words: list[tuple[str, int, bool, bool]]) -> None:
    server, last = Server(SCOPE, pool()), {}
    for name, host, ready, deleted in words:
        found = None if deleted else pod(name, f"10.{ord(name)}.0.{host}", ready=ready)
        server.assembly.pod(Change(name, None) if found is None else changed(read_pod, found))
        last[name] = found if found is None or ready else None
    assert set(server.addresses()) == {f"{found['status']['podIP']}:8000" for found in last.values() if found}


def test_objectives_of_this_pool_give_their_priorities_and_the_new_group_counts_more() -> None:
    server = Server(SCOPE, pool())
    server.objective(objective("both", priority=1), source=0)
    server.objective(objective("both", priority=2), source=1)
    server.objective(objective("old", priority=3), source=0)
    server.objective(objective("other", pool="q", priority=9))
    assert server.assembly.directory().objectives == {"both": 2, "old": 3}
    server.assembly.objective(Change("both", None), 1)
    assert server.assembly.directory().objectives["both"] == 1


def test_rewrites_stand_in_their_order_of_precedence() -> None:
    server = Server(SCOPE, pool())
    server.rewrite(rewrite("new", to("n1", models=["m"]), to("n2"), created="2026-02-01T00:00:00Z"))
    server.rewrite(rewrite("old", to("o1"), to("o2", models=["m"]), to("o3", models=["k"])), source=0)
    server.rewrite(rewrite("other", to("x"), pool="q"))
    ordered = [rule.targets[0].model for rule in server.assembly.directory().rewrites]
    assert ordered == ["o2", "o3", "n1", "o1", "n2"]


def test_a_scope_by_labels_needs_no_pool() -> None:
    scope = KubeScope("ns", selector={"app": "vllm"}, target_ports=(8000,))
    assert Server(scope).pods(pod()).addresses() == ["10.0.0.1:8000"]


@pytest.mark.parametrize(
    "scope",
    [
        {"namespace": "Ns", "pool": "p"},
        {"namespace": "ns"},
        {"namespace": "ns", "pool": "p/../secrets"},
        {"namespace": "ns", "pool": "p", "selector": {"a": "b"}},
        {"namespace": "ns", "selector": {"a": "b"}},
        {"namespace": "ns", "selector": {"a": "b,c=d"}, "target_ports": (1,)},
        {"namespace": "ns", "selector": {"a": "b"}, "target_ports": (1, 1)},
        {"namespace": "ns", "pool": "p", "group": "a/b"},
        {"namespace": "ns", "pool": "p", "kv_events_port": 0},
    ],
)
def test_a_scope_that_kubernetes_could_not_know_is_refused(scope: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no |ports|port|scope"):
        KubeScope(**scope)


def test_a_selector_is_written_as_the_api_reads_it() -> None:
    assert label_selector({"tier": "", "example.com/app": "vllm"}) == "example.com/app=vllm,tier="


def test_the_calls_of_a_pools_watch_are_lists_and_watches_of_six_collections() -> None:
    found = list(rules(SCOPE))
    assert {(rule.group, rule.resource) for rule in found} == {
        ("", "pods"),
        ("inference.networking.k8s.io", "inferencepools"),
        ("llm-d.ai", "inferenceobjectives"),
        ("llm-d.ai", "inferencemodelrewrites"),
        ("inference.networking.x-k8s.io", "inferenceobjectives"),
        ("inference.networking.x-k8s.io", "inferencemodelrewrites"),
    }
    assert {rule.verbs for rule in found} == {("list", "watch")}


def test_by_labels_only_pods_are_watched_and_a_lease_is_needed_for_election_alone() -> None:
    scope = KubeScope("ns", selector={"app": "vllm"}, target_ports=(8000,))
    assert [str(resource) for resource in watched(scope)] == ["pods"]
    lease = Rule("coordination.k8s.io", "leases", ("get", "create", "update"))
    assert list(rules(scope, leader_election=True)) == [Rule("", "pods", ("list", "watch")), lease]


def test_collections_are_where_the_api_keeps_them() -> None:
    paths = [resource.path("ns") for resource in watched(SCOPE)]
    assert paths[:2] == [
        "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools",
        "/api/v1/namespaces/ns/pods",
    ]
    assert "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferenceobjectives" in paths
