"""The tables of docs/migrate.md, written from the code that they are about.

python -m picker.server.migration docs/migrate.md       # rewrites the tables between their marks
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from picker.policies.composed.pickers import PICKERS
from picker.policies.composed.plugins import FILTERS, SCORERS
from picker.requests import headers
from picker.server import flags
from picker.server.config_schema import TESTING
from picker.server.llmd_plugins import (
    DEPRECATED,
    NEEDLESS_PARAMETERS,
    NEEDLESS_PLUGINS,
    ONLY_VALUES,
    RENAMED,
    UNSUPPORTED_FIELDS,
    UNSUPPORTED_PLUGINS,
)
from picker.telemetry import peer_metrics

_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

_HEADERS = {
    headers.OBJECTIVE: "the objective, and by it the priority",
    headers.MODEL_REWRITE: "the model that the engine is asked for",
    headers.SLO_TTFT_MS: "wanted time to first token",
    headers.SLO_TPOT_MS: "wanted time per output token",
    headers.SESSION: "the session's id, the first one present",
    headers.FAIRNESS_ID: "kept in the request, not used: there is no queue to be fair in",
}


def filled(page: str) -> str:
    """The page with all tables as they must be. Raises KeyError for a mark that no table has."""
    tables = {
        "flags": lambda: flags.section().splitlines(),
        "headers": _header_rows,
        "plugins": _plugin_rows,
        "parameters": _parameter_rows,
        "sections": _section_rows,
        "metrics": peer_metrics.table,
    }
    return _MARKED.sub(lambda mark: mark[1] + "\n".join(tables[mark[2]]()) + "\n" + mark[3], page)


def _header_rows() -> Iterator[str]:
    yield from ("| header, and its older names | here |", "|---|---|")
    for names, meaning in _HEADERS.items():
        yield f"| {_code(names)} | {meaning} |"


def _plugin_rows() -> Iterator[str]:
    yield from ("| plugin type | here |", "|---|---|")
    yield f"| {_code(FILTERS)} | the same ([filters](policies.md#composed)) |"
    yield f"| {_code(SCORERS)} | the same ([scorers](policies.md#composed)) |"
    yield f"| {_code(PICKERS)}, `single-profile-handler` | the same |"
    yield "| `core-metrics-extractor` | `defaultEngine` is the same; names of metrics and of the label cannot be set |"
    yield f"| {_code(TESTING)} | the same, for conformance tests |"
    for older, newer in (RENAMED | DEPRECATED).items():
        yield f"| `{older}` | works, with a warning: say `{newer}` |"
    for why, kinds in _by_reason(NEEDLESS_PLUGINS).items():
        yield f"| {_code(kinds)} | passed over: {why} |"
    for why, kinds in _by_reason(UNSUPPORTED_PLUGINS).items():
        yield f"| {_code(kinds)} | refused: {why} |"
    yield "| `multicluster-*` | refused: one cluster is served |"


def _parameter_rows() -> Iterator[str]:
    yield from ("| plugin type | parameter | here |", "|---|---|---|")
    for kind, parameters in NEEDLESS_PARAMETERS.items():
        for why, names in _by_reason(parameters).items():
            yield f"| `{kind}` | {_code(names)} | passed over: {why} |"
    for kind, values in ONLY_VALUES.items():
        for name, (only, why) in values.items():
            yield f"| `{kind}` | `{name}` | only `{json.dumps(only)}`: {why} |"


def _section_rows() -> Iterator[str]:
    yield from ("| section | field | here |", "|---|---|---|")
    yield "| `dataLayer`, `requestHandler`, `parser` | what is not named below | passed over |"
    yield "| `flowControl`, top level (deprecated) | `saturationDetector` | the same |"
    yield "| `featureGates` | `flowControl` | refused: requests are not queued |"
    for section, refused in UNSUPPORTED_FIELDS.items():
        if section != "data":
            for why, names in _by_reason(refused).items():
                yield f"| `{section}` | {_code(names)} | refused: {why} |"


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(why, []).append(name)
    return found


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(filled(target.read_text()))
