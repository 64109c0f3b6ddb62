"""What request headers ask of the picker. Bounded; what makes no sense counts as absent."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from picker.requests.request import Hints

MAX_VALUE = 256
"""Characters of an identifier; a longer one is ignored whole, since a cut one could be somebody else's."""

OBJECTIVE = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
FAIRNESS_ID = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
MODEL_REWRITE = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
SLO_TTFT_MS = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
SLO_TPOT_MS = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
SESSION_TOKEN = ("x-session-token",)
SESSION = ("x-session-id", "x-claude-code-session-id", "x-session-affinity", "session-id", "x-session-token")
"""Each tuple: the header's names, the first one present wins."""

STEERING_HEADERS: Mapping[str, str] = {
    "x-data-parallel-rank": "chooses the engine's data-parallel rank around the pick",
    "x-data-parallel-host-port": "makes a pod's sidecar forward to any rank",
    "x-prefiller-host-port": "makes a pod's sidecar pull KV from any host",
    "x-encoder-hosts-ports": "makes a pod's sidecar pull embeddings from any host",
    "x-kv-cache-source-host-port": "makes a pod pull KV from any host",
}
"""Headers that steer engines or their sidecars: a client's own must not reach them."""

_ASKING = frozenset({*OBJECTIVE, *FAIRNESS_ID, *SLO_TTFT_MS, *SLO_TPOT_MS, *SESSION_TOKEN, *SESSION})
_REQUEST_ID = ("x-request-id",)
_MILLISECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?", re.ASCII)


def hints(headers: Mapping[str, str], priorities: Mapping[str, int] = MappingProxyType({})) -> Hints:
    """Read the hints from lower-case headers; `priorities` are those of the known objectives. Never fails."""
    request_id = _text(headers, _REQUEST_ID)
    if _ASKING.isdisjoint(headers):
        return Hints(request_id, priority=priorities.get("", 0))
    objective = _text(headers, OBJECTIVE)
    return Hints(
        request_id=request_id,
        objective=objective,
        fairness_id=_text(headers, FAIRNESS_ID),
        slo_ttft_ms=_milliseconds(headers, SLO_TTFT_MS),
        slo_tpot_ms=_milliseconds(headers, SLO_TPOT_MS),
        session=_text(headers, SESSION),
        priority=priorities.get(objective, 0),
        session_token=_text(headers, SESSION_TOKEN),
    )


def model_rewrite(headers: Mapping[str, str]) -> str:
    """The model to ask the engine for instead of the client's; empty where none is asked."""
    return _text(headers, MODEL_REWRITE)


def _text(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        value = headers.get(name)
        if value is not None:
            value = value.strip()
            if value and len(value) <= MAX_VALUE and value.isprintable():
                return value
    return ""


def _milliseconds(headers: Mapping[str, str], names: tuple[str, ...]) -> float | None:
    text = _text(headers, names)
    if not _MILLISECONDS.fullmatch(text):
        return None
    return float(text) or None
