"""Which API calls picker makes, as data: the watch lists and watches these, a Role has to allow these and no more."""

from collections.abc import Iterator
from dataclasses import dataclass

from picker.pool.kube.scope import POOL_GROUP, KubeScope

OLD_GROUP = "inference.networking.x-k8s.io"
NEW_GROUP = "llm-d.ai"
_WATCHED = ("list", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection in the API. A picker without `needed` ones is not ready; without the others it merely knows less."""

    group: str
    version: str
    plural: str
    needed: bool = False

    def path(self, namespace: str) -> str:
        """Where the API server keeps the collection."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.plural}"

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS = Resource("", "v1", "pods", needed=True)
OBJECTIVES = tuple(Resource(group, "v1alpha2", "inferenceobjectives") for group in (OLD_GROUP, NEW_GROUP))
REWRITES = tuple(Resource(group, "v1alpha2", "inferencemodelrewrites") for group in (OLD_GROUP, NEW_GROUP))


def pools(group: str = POOL_GROUP) -> Resource:
    """The collection of InferencePools."""
    return Resource(group, "v1", "inferencepools", needed=True)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a Role in the pool's namespace. `verbs` are those that are used."""

    group: str
    resource: str
    verbs: tuple[str, ...]


def watched(scope: KubeScope) -> tuple[Resource, ...]:
    """The collections that are watched for a scope. Pods that a selector names belong to no pool that an objective or
    a rewrite could refer to."""
    if not scope.pool:
        return (PODS,)
    return (pools(scope.group), PODS, *OBJECTIVES, *REWRITES)


def rules(scope: KubeScope, *, leader_election: bool = False) -> Iterator[Rule]:
    """All that a Role has to allow: the watch, and the Lease where replicas elect a leader."""
    for resource in watched(scope):
        yield Rule(resource.group, resource.plural, _WATCHED)
    if leader_election:
        yield Rule("coordination.k8s.io", "leases", ("get", "create", "update"))
