"""Which engine runs behind endpoints whose labels do not say."""

from collections.abc import Iterable
from dataclasses import replace

from picker.pool.kube.objects import ENGINE_TYPE
from picker.pool.view import Endpoint, EngineKind


def with_engine(endpoints: Iterable[Endpoint], engine: EngineKind) -> tuple[Endpoint, ...]:
    """The endpoints, those without a label of their engine as of this one.

    >>> with_engine([Endpoint("10.0.0.1:8000")], "sglang")[0].engine
    'sglang'
    """
    if engine == "vllm":  # what they are already
        return tuple(endpoints)
    return tuple(
        endpoint if any(label in endpoint.labels for label in ENGINE_TYPE) else replace(endpoint, engine=engine)
        for endpoint in endpoints
    )
