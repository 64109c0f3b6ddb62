"""Every policy by name. A new policy is one line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from picker.policies import learned, multiplicative, preble, prefix_and_load, staged, sticky_until_saturated, weighted
from picker.policies.composed import policy as composed
from picker.policies.jsq import Jsq
from picker.policies.least_request import LeastRequest
from picker.policies.policy import Policy
from picker.policies.random import Random
from picker.policies.round_robin import RoundRobin
from picker.policies.strict import NoParams, read_strictly

P = TypeVar("P", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Factory(Generic[P]):
    """Makes one policy: `params` are its parameters, `build` takes them and the randomness it may use."""

    params: type[P]
    build: Callable[[P, np.random.Generator], Policy]

    def __call__(self, params: Mapping[str, object], rng: np.random.Generator) -> Policy:
        """A fresh policy from outside parameter names. Raises BadSettings, naming every wrong one."""
        return self.build(read_strictly(self.params, params), rng)


REGISTRY: dict[str, Factory[Any]] = {
    "multiplicative": Factory(multiplicative.Params, lambda p, rng: multiplicative.Multiplicative(p)),
    "learned": Factory(learned.Params, lambda p, rng: learned.Learned(p, rng)),
    "staged": Factory(staged.Params, staged.Staged),
    "random": Factory(NoParams, lambda p, rng: Random()),
    "round-robin": Factory(NoParams, lambda p, rng: RoundRobin()),
    "least-request": Factory(NoParams, lambda p, rng: LeastRequest()),
    "jsq": Factory(NoParams, lambda p, rng: Jsq()),
    "prefix-and-load": Factory(prefix_and_load.Params, lambda p, rng: prefix_and_load.PrefixAndLoad(p)),
    "weighted": Factory(weighted.Params, lambda p, rng: weighted.Weighted(p)),
    "sticky-until-saturated": Factory(
        sticky_until_saturated.Params, lambda p, rng: sticky_until_saturated.StickyUntilSaturated(p)
    ),
    "preble": Factory(preble.Params, lambda p, rng: preble.Preble(p)),
    "composed": Factory(composed.Params, composed.Composed),
}

DEFAULT_POLICY = "multiplicative"
