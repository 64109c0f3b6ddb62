"""The configuration file: what every mistake answers, and that nothing else ever comes of one."""

from contextlib import suppress

import numpy as np
import pytest
from config_texts import HEAD, problems, wrong
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picker.policies.registry import REGISTRY
from picker.server.config import ConfigError, PickerConfig, read_config
from picker.server.llmd_plugins import (
    UNSUPPORTED_PLUGINS,
)
from picker.server.marked_yaml import MAX_BYTES


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pluginz: []", 'f:3:1: unknown field "pluginz"; did you mean "plugins"?'),
        ("plugins: [{tipe: x, type: jsq-policy}]", 'f:3:12: unknown field "tipe"; did you mean "type"?'),
        ("plugins: [{name: x}]", 'f:3:11: missing field "type"'),
        ("plugins: {}", 'f:3:1: field "plugins": expected `array`, got `object`'),
        ("plugins: [jsq-policy]", "f:3:11: expected a mapping"),
        (
            "plugins: [{type: multiplicativ-policy}]",
            'f:3:18: unknown plugin type "multiplicativ-policy"; did you mean "multiplicative-policy"?',
        ),
        (
            "plugins: [{type: sticky-until-saturated-policy, parameters: {peekPrefillRate: 1}}]",
            'f:3:62: unknown field "peekPrefillRate"; did you mean "peakPrefillRate"?',
        ),
        ("plugins: [{type: jsq-policy, parameters: {x: 1}}]", 'f:3:43: unknown field "x"; none is known'),
        (
            "plugins: [{type: picker-settings, parameters: {responsePath: ehco}}]",
            'f:3:48: field "responsePath": expected one of access-log, detach, echo',
        ),
        (
            "plugins: [{type: picker-settings, parameters: {destinations: 0}}]",
            'f:3:48: field "destinations": expected `int` >= 1',
        ),
        (
            "plugins: [{type: preble-policy, parameters: {decodeTokens: .inf}}]",
            'f:3:46: field "decodeTokens": expected `float` <= 1000000.0',
        ),
        ("plugins: [{type: jsq-policy}, {type: jsq-policy}]", 'f:3:31: plugin name "jsq-policy" is taken by line 3'),
        (
            "plugins: [{type: picker-settings}, {name: b, type: picker-settings}]",
            "f:3:36: picker-settings is declared twice",
        ),
        (
            "plugins: [{type: jsq-policy}, {type: random-policy}]",
            'f:3:31: one policy decides: "jsq-policy" is in use already',
        ),
        (
            "plugins: [{type: jsq-policy}, {type: queue-scorer}]",
            'f:3:31: "queue-scorer" beside policy "jsq-policy": use one or the other',
        ),
        (
            "plugins: [{type: jsq-policy}, {type: random-picker}]",
            'f:3:31: "random-picker" beside policy "jsq-policy": use one or the other',
        ),
        (
            "plugins: [{type: max-score-picker}, {type: random-picker}]",
            'f:3:37: one picker picks: "max-score-picker" is in use already',
        ),
        (
            "plugins: [{type: label-selector-filter, parameters: "
            "{matchExpressions: [{key: a, operator: Is, values: [b]}]}}]",
            "f:3:54: field \"matchExpressions\": invalid enum value 'Is' - at `$[0].operator`",
        ),
        ("plugins: [{type: by-label}]", 'f:3:11: missing field "label"'),
        (
            "plugins: [{type: session-affinity-scorer, parameters: {headerName: x-session-id}}]",
            "f:3:55: a token is read from x-session-token only",
        ),
        (
            "plugins: [{type: metrics-data-source, parameters: {scheme: https}}]",
            'f:3:52: metrics-data-source cannot have another "scheme" than "http": engines are scraped over plain HTTP',
        ),
        (
            "dataLayer: {sources: [{pluginRef: x}]}",
            'f:3:35: no plugin is named "x"; none is known',
        ),
        (
            "dataLayer: {discovery: {pluginRef: x}}",
            "f:3:13: dataLayer.discovery is known to llm-d-router, not supported here: "
            "endpoints come from the command line",
        ),
        ("requestHandler: {parser: []}", 'f:3:18: unknown field "parser"; did you mean "parsers"?'),
        (
            "saturationDetector: {pluginRef: queue-scorer}\nplugins: [{type: queue-scorer}]",
            'f:3:21: "queue-scorer" is no saturation detector; known: utilization-detector, concurrency-detector',
        ),
        (
            "plugins: [{type: multicluster-queue-scorer}]",
            "f:3:18: multicluster-queue-scorer is known to llm-d-router, not supported here: one cluster is served",
        ),
        (
            "plugins: [{type: jsq-policy}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: jsk-policy}]}]",
            'f:4:54: no plugin is named "jsk-policy"; did you mean "jsq-policy"?',
        ),
        (
            "plugins: [{type: queue-scorer}]\n"
            "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: 0}]}]",
            "f:3:11: every scorer has weight 0",
        ),
        (
            "plugins: [{type: queue-scorer}]\n"
            "schedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: -1}]}]",
            'f:4:68: field "weight": expected `float` >= 0.0',
        ),
        (
            "plugins: [{type: jsq-policy}]\n"
            "schedulingProfiles: [{name: p, plugins: [{pluginRef: jsq-policy}, {pluginRef: jsq-policy}]}]",
            'f:4:79: "jsq-policy" is named twice in this profile',
        ),
        (
            "schedulingProfiles: [{name: prefill}, {name: decode}]",
            "f:3:39: a second profile is known to llm-d-router, not supported here: there is one profile",
        ),
        (
            "plugins: [{type: picker-settings, parameters: {destinations: 2}}, "
            "{type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}]",
            "f:3:67: maxNumOfEndpoints and destinations of picker-settings say the same: keep one",
        ),
        (
            "plugins: [{type: prefix-cache-scorer, parameters: {prefixLengthWeight: 1.5}}]",
            'f:3:52: field "prefixLengthWeight": expected `float` <= 1.0',
        ),
        (
            "plugins: [{type: disagg-profile-handler}]",
            "f:3:18: disagg-profile-handler is known to llm-d-router, not supported here: "
            "prefill and decode are not separated",
        ),
        (
            "flowControl: {maxBytes: 1}",
            "f:3:15: flowControl.maxBytes is known to llm-d-router, not supported here: requests are not queued",
        ),
        (
            "featureGates: [flowControl]",
            "f:3:16: flowControl is known to llm-d-router, not supported here: requests are not queued",
        ),
        ("featureGates: [flowcontrol]", 'f:3:16: unknown feature gate "flowcontrol"; did you mean "flowControl"?'),
    ],
)
def test_a_mistake_names_its_place_and_what_would_have_been_right(body: str, expected: str) -> None:
    assert wrong(body) == [expected]


@pytest.mark.parametrize("kind", UNSUPPORTED_PLUGINS)
def test_what_only_llmd_knows_is_told_from_what_nobody_knows(kind: str) -> None:
    (problem,) = wrong(f"plugins: [{{type: {kind}}}]")

    assert problem.startswith(f"f:3:18: {kind} is known to llm-d-router, not supported here: ")


def test_all_mistakes_are_listed_at_once() -> None:
    found = wrong("""
plugins:
- type: jsk-policy
- type: preble-policy
  parameters:
    decodeToken: 1
    decodeMsPerToken: fast
- type: jsq-policy
  weight: 1
""")

    assert [problem.split(": ")[0] for problem in found] == ["f:4:9", "f:7:5", "f:8:5", "f:10:3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f: empty: no document"),
        ("# nothing\n", "f: empty: no document"),
        ("just words", "f:1:1: expected a mapping"),
        ("- a\n- b", "f:1:1: expected a mapping"),
        ("a: [1\n", "f:2:1: expected ',' or ']', but got '<stream end>'"),
        ("a: &x {}\nb: *x", "f:2:4: aliases are not allowed"),
        ("<<: {}", "f:1:1: merge keys are not allowed"),
        ("a: !!python/name:os.system ''", 'f:1:4: tag "python/name:os.system" is not allowed'),
        ("a: !!set {x}", 'f:1:4: tag "set" is not allowed'),
        ("a: 1\na: 2", 'f:2:1: "a" is said twice, first in line 1'),
        ("1: a", "f:1:1: a key must be a string"),
        ("? [a]\n: b", "f:1:3: a key must be a string"),
        ("a: 1\n---\nb: 2", "f:2:1: but found another document"),
        ("a: \x07", "f:1:4: character U+0007 is not allowed"),
        ('a: "\\U00110000"', "f: an escape names no character"),
        ('a: "\\uD800"', "f:1:4: an escape names no character"),
        ("a: !!int x", "f:1:4: not a valid int"),
        ("[" * 100, "f:1:33: nested deeper than 32 levels"),
        (" " * (MAX_BYTES + 1), f"f: larger than {MAX_BYTES} bytes"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_not_a_plain_mapping_is_refused(text: str, expected: str) -> None:
    assert problems(text) == [expected]


def test_a_billion_laughs_end_at_the_first_alias() -> None:
    lines = ["a0: &a0 [ha]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]

    assert problems("\n".join(lines)) == ["f:2:10: aliases are not allowed"]


def test_a_head_of_another_kind_is_refused() -> None:
    assert problems("apiVersion: v1\nkind: ConfigMap\n") == [
        "f:1:13: apiVersion must be llm-d.ai/v1alpha1",
        "f:2:7: kind must be EndpointPickerConfig",
    ]


def test_a_name_cannot_forge_a_line_of_the_message() -> None:
    (problem,) = wrong('"plugins\\nf:1:1: all is well": 1')

    assert "\n" not in problem


def test_more_plugins_than_anyone_needs_are_refused() -> None:
    assert wrong("plugins:\n" + "- {type: jsq-policy}\n" * 65) == [
        'f:3:1: field "plugins": expected `array` of length <= 64'
    ]


# Anything


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "queue-scorer",
            "picker-settings",
            "jsq-policy",
            "by-label",
            "decode-filter",
            "max-score-picker",
            "openai-parser",
        ]
    )
)
names = st.sampled_from(
    [
        "name",
        "type",
        "parameters",
        "pluginRef",
        "weight",
        "plugins",
        "destinations",
        "models",
        "sources",
        "parsers",
        "x",
    ]
)
FIELDS = [
    "plugins",
    "schedulingProfiles",
    "featureGates",
    "apiVersion",
    "dataLayer",
    "requestHandler",
    "parser",
    "flowControl",
    "saturationDetector",
]
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


def as_yaml(value: object) -> str:
    """Flow style by hand: faster than an emitter, and strings stay as wild as they are."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    return str(value)


def usable(config: PickerConfig) -> bool:
    """What was read without an error can be built."""
    return bool(config.make_policy(np.random.default_rng(0)).name in REGISTRY and config.admission())


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="{}[]:,-&*!|>'\"#%@`?<=~ \n\t0aAxX._", max_size=40))
@example("a: 2001-99-99")
@example("a: 0o9\nb: 1:99:99\nc: 0b_\nd: 0x_\ne: +.inf\nf: 1__\ng: .e1")
@example("\ud800")
@example("%TAG ! tag:x,2000:\n---\n!a b")
@example('a: "\\U00110000"')
@example('a: "\\uD800"')
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    for whole in (text, HEAD + text, HEAD + "plugins: " + text):
        with suppress(ConfigError):
            assert usable(read_config(whole))


@settings(max_examples=200, deadline=None)
@given(trees, st.sampled_from(FIELDS), trees)
def test_no_tree_raises_anything_but_a_config_error(tree: object, field: str, plugins: object) -> None:
    body = f"{field}: {as_yaml(tree)}\n"
    if field != "plugins":
        body += f"plugins: {as_yaml(plugins)}\n"
    with suppress(ConfigError):
        assert usable(read_config(HEAD + body if field != "apiVersion" else body))
