"""From the mirrors of a pool's objects to its `Directory`. What one pod changes costs as much as one pod."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from picker.pool.directory import Directory, Rewrite
from picker.pool.kube.objects import ModelRewrite, Objective, Pod, PoolSpec
from picker.pool.kube.reflector import Change
from picker.pool.kube.scope import KubeScope, is_port
from picker.pool.view import Endpoint

MAX_ENDPOINTS = 40_000
MAX_REWRITE_RULES = 4096

_Key = tuple[int, str]
_V = TypeVar("_V")


class Assembly:
    """Takes the changes of each collection; `directory` is the whole as it stands.

    Objectives and rewrites come from two groups, told apart by `source`: of equal names the later source counts.
    """

    def __init__(self, scope: KubeScope) -> None:
        self._scope = scope
        self._spec = None if scope.pool else PoolSpec(scope.selector, scope.target_ports)
        self._pods: dict[str, Pod] = {}
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._objectives: dict[_Key, Objective] = {}
        self._rewrites: dict[_Key, ModelRewrite] = {}
        self.changed = False
        """Whether the directory is another one since it was last asked for."""

    @property
    def selector(self) -> Mapping[str, str] | None:
        """The labels of the pool's pods; None while there is no pool."""
        return None if self._spec is None else self._spec.selector

    def pool(self, change: Change[PoolSpec]) -> None:
        """The InferencePool changed. One that became unusable stays as it was; one that is gone takes all along."""
        if change.name != self._scope.pool or change.problem or change.value == self._spec:
            return
        self._spec, self.changed = change.value, True
        self._endpoints = {name: tuple(self._of(name, pod)) for name, pod in self._pods.items()}

    def pod(self, change: Change[Pod]) -> None:
        """A pod changed."""
        before = self._endpoints.get(change.name, ())
        if change.value is None:
            self._pods.pop(change.name, None)
            self._endpoints.pop(change.name, None)
        else:
            self._pods[change.name] = change.value
            self._endpoints[change.name] = tuple(self._of(change.name, change.value))
        self.changed |= before != self._endpoints.get(change.name, ())

    def objective(self, change: Change[Objective], source: int) -> None:
        """An InferenceObjective changed."""
        self.changed |= _put(self._objectives, (source, change.name), change.value)

    def rewrite(self, change: Change[ModelRewrite], source: int) -> None:
        """An InferenceModelRewrite changed."""
        self.changed |= _put(self._rewrites, (source, change.name), change.value)

    def directory(self) -> Directory:
        """The whole as it stands. Of two pods with one address the younger has it."""
        self.changed = False
        if self._spec is None:
            return Directory(pool_exists=False)
        return Directory(
            endpoints=tuple(self._by_address().values())[:MAX_ENDPOINTS],
            objectives={
                name: objective.priority
                for (_, name), objective in sorted(self._objectives.items(), key=lambda item: item[0])
                if self._is_ours(objective.pool)
            },
            rewrites=tuple(self._rules())[:MAX_REWRITE_RULES],
            app_protocol=self._spec.app_protocol,
        )

    def _of(self, name: str, pod: Pod) -> Iterator[Endpoint]:
        """One endpoint for each target port that serves. Its place among the target ports is its rank."""
        spec = self._spec
        if spec is None or not pod.serving or not pod.ip:
            return
        if any(pod.labels.get(key) != value for key, value in spec.selector.items()):
            return
        scope, active = self._scope, pod.active_ports
        for rank, port in enumerate(spec.ports):
            if active is not None and port not in active:
                continue
            address = f"{pod.ip}:{port}"
            yield Endpoint(
                address=address,
                name=name if len(spec.ports) == 1 else f"{name}-rank-{rank}",
                uid=pod.uid,
                engine=pod.engine,
                labels=pod.labels,
                metrics_address=address,
                kv_events=_zmq(pod.ip, pod.kv_events_port or scope.kv_events_port, rank),
                kv_replay=_zmq(pod.ip, pod.kv_replay_port or scope.kv_replay_port, rank),
            )

    def _by_address(self) -> dict[str, Endpoint]:
        endpoints = {endpoint.address: endpoint for of_pod in self._endpoints.values() for endpoint in of_pod}
        if len(endpoints) == sum(map(len, self._endpoints.values())):
            return endpoints
        by_age = sorted(self._endpoints.items(), key=lambda item: self._pods[item[0]].created)
        return {endpoint.address: endpoint for _, of_pod in by_age for endpoint in of_pod}

    def _is_ours(self, pool: tuple[str, str]) -> bool:
        return pool == (self._scope.group, self._scope.pool)

    def _rules(self) -> Iterator[Rewrite]:
        """Named models before all, then the oldest object, then the first rule."""
        by_source = sorted(self._rewrites.items(), key=lambda item: item[0])
        ours = {name: rewrite for (_, name), rewrite in by_source if self._is_ours(rewrite.pool)}
        by_age = sorted(ours.items(), key=lambda item: (item[1].created, item[0]))
        rules = [rule for _, rewrite in by_age for rule in rewrite.rules]
        yield from (rule for rule in rules if rule.models)
        yield from (rule for rule in rules if not rule.models)


def _zmq(ip: str, first_port: int | None, rank: int) -> str | None:
    if first_port is None or not is_port(first_port + rank):
        return None
    return f"tcp://{ip}:{first_port + rank}"


def _put(into: dict[_Key, _V], key: _Key, value: _V | None) -> bool:
    """Set or remove; whether anything changed."""
    if into.get(key) == value:
        return False
    if value is None:
        del into[key]
    else:
        into[key] = value
    return True
