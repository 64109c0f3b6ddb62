"""All that a pool's keeper says of it at one moment: endpoints, priorities, model rewrites. Replaced whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from picker.pool.view import Endpoint


@dataclass(frozen=True, slots=True)
class Target:
    """A model to ask for, and its share among the targets of its rule. `weight` >= 0; those of a rule sum to > 0."""

    model: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rule of an InferenceModelRewrite called `name`. `models`: the names it applies to; empty for all of them."""

    name: str
    models: frozenset[str]
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """`objectives`: priority by InferenceObjective name. `rewrites`: the first that applies counts (rules for named
    models before those for all, then the oldest object's, then the first in the object).

    `app_protocol` is what the endpoints speak, "http" or "kubernetes.io/h2c". Without its pool a directory is empty.
    """

    endpoints: tuple[Endpoint, ...] = ()
    objectives: Mapping[str, int] = field(default_factory=dict)
    rewrites: tuple[Rewrite, ...] = ()
    app_protocol: str = "http"
    pool_exists: bool = True
