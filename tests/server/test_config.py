"""The configuration file: what is read, and what every mistake answers."""

import re
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from picker.policies.example import example_request, example_rows
from picker.policies.registry import REGISTRY
from picker.requests.request import Hints, Request
from picker.server.config import ConfigError, PickerConfig, load_config, read_config
from picker.server.config_schema import Settings
from picker.server.llmd_plugins import (
    DEPRECATED,
    NEEDLESS_PARAMETERS,
    NEEDLESS_PLUGINS,
    RENAMED,
    UNSUPPORTED_PLUGINS,
)
from picker.server.marked_yaml import MAX_BYTES

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"

LLMD = """
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- name: pick
  type: max-score-picker
  parameters: {maxNumOfEndpoints: 2}
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 1.5}
  - {pluginRef: prefix-cache-scorer}
  - {pluginRef: pick}
"""


def read(body: str) -> PickerConfig:
    """A file of this body under a right head; its first line is line 3."""
    return read_config(HEAD + body.lstrip("\n"), "f")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(text, "f")
    return list(caught.value.problems)


def wrong(body: str) -> list[str]:
    return problems(HEAD + body.lstrip("\n"))


# What is read


def test_without_a_file_the_policy_is_multiplicative() -> None:
    assert load_config(None) == PickerConfig(policy="multiplicative", params={}, settings=Settings(), warnings=())


def test_a_file_that_says_nothing_more_is_the_default() -> None:
    assert read("") == load_config(None)


def test_a_policy_plugin_is_used_with_its_parameters() -> None:
    config = read("""
plugins:
- type: sticky-until-saturated-policy
  parameters: {peakPrefillRate: 15000}
""")

    assert (config.policy, config.params) == ("sticky-until-saturated", {"peakPrefillRate": 15000})
    assert config.make_policy(np.random.default_rng(0)).name == "sticky-until-saturated"


@pytest.mark.parametrize("name", [name for name in REGISTRY if name != "composed"])
def test_every_policy_is_a_plugin_type(name: str) -> None:
    assert read(f"plugins: [{{type: {name}-policy}}]").policy == name


@pytest.mark.parametrize(
    ("kind", "setting", "header"),
    [
        ("header-based-testing-filter", "selection_header", "test-epp-endpoint-selection"),
        ("destination-endpoint-served-verifier", "served_header", "x-conformance-test-served-endpoint"),
    ],
)
def test_a_plugin_for_conformance_tests_is_off_unless_declared_and_then_warned_of(
    kind: str, setting: str, header: str
) -> None:
    assert getattr(read("").exchange_settings(), setting) is None
    config = read(f"plugins: [{{type: {kind}}}]")
    assert getattr(config.exchange_settings(), setting) == header
    assert config.warnings == (f"f:3:11: {kind} is for conformance tests only",)


def test_a_profile_chooses_among_declared_policies() -> None:
    config = read("""
plugins:
- {type: random-policy}
- {name: mine, type: preble-policy}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: mine}]
""")

    assert config.policy == "preble"
    assert config.warnings == ('f:4:3: plugin "random-policy" is not used',)


def steps(config: PickerConfig, part: str) -> list[tuple[object, ...]]:
    return [tuple(step[key] for key in ("type", "weight", "parameters") if key in step) for step in config.params[part]]


def test_llmd_scorers_become_the_composed_policy() -> None:
    config = read(LLMD)

    assert (config.policy, config.params["picker"]) == ("composed", "max-score-picker")
    assert steps(config, "scorers") == [
        ("queue-scorer", 2.0, {}),
        ("kv-cache-utilization-scorer", 1.5, {}),
        ("prefix-cache-scorer", 1.0, {}),
    ]
    assert config.settings.destinations == 2
    assert config.warnings == ()


def test_filters_keep_their_order_and_their_parameters() -> None:
    config = read("""
plugins:
- {type: decode-filter}
- {name: near, type: prefix-cache-affinity-filter, parameters: {affinityThreshold: 0.99}}
- {type: weighted-random-picker}
schedulingProfiles:
- {name: p, plugins: [{pluginRef: near}, {pluginRef: decode-filter}, {pluginRef: weighted-random-picker}]}
""")

    assert steps(config, "filters") == [
        ("prefix-cache-affinity-filter", {"affinityThreshold": 0.99}),
        ("decode-filter", {}),
    ]
    assert config.params["picker"] == "weighted-random-picker"


def test_without_profiles_every_declared_plugin_is_used_but_detectors() -> None:
    config = read("plugins: [{type: queue-scorer}, {type: decode-filter}, {type: utilization-detector}]")

    assert steps(config, "scorers") == [("queue-scorer", 1.0, {})]
    assert steps(config, "filters") == [("decode-filter", {})]


@pytest.mark.parametrize(
    "body",
    [
        "flowControl: {saturationDetector: {pluginRef: d}}\nplugins: [{name: d, type: concurrency-detector}]",
        "saturationDetector: {pluginRef: d}\nplugins: [{name: d, type: concurrency-detector}]",
    ],
)
def test_the_saturation_detector_is_the_one_that_is_named(body: str) -> None:
    busy = example_rows(example_request(), in_flight=[100, 100], age_s=[0, 0])
    sheddable = Request(hints=Hints(priority=-1))

    assert read("").admission()(sheddable, busy)
    assert not read(body).admission()(sheddable, busy)


def test_what_a_stock_file_says_of_data_and_parsers_is_passed_over_with_a_warning() -> None:
    config = read("""
plugins:
- {type: metrics-data-source, parameters: {scheme: http, path: /metrics, insecureSkipVerify: true}}
- {type: core-metrics-extractor}
- {type: openai-parser}
dataLayer:
  sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]
requestHandler:
  parsers: [{pluginRef: openai-parser}]
""")

    assert config.policy == "multiplicative"
    assert config.warnings == (
        "f:4:10: metrics-data-source has no meaning here: engines are scraped without configuration",
        "f:6:10: openai-parser has no meaning here: every API is recognised by its path",
        "f:7:1: dataLayer has no meaning here: engines are watched without configuration",
        "f:9:1: requestHandler has no meaning here: every API is recognised by its path, "
        "and bodies on other paths are not read",
    )


def test_engines_that_no_label_names_are_those_of_the_metrics_extractor() -> None:
    assert read("").engine == "vllm"
    assert read("plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: sglang}}]").engine == "sglang"


@pytest.mark.parametrize("kind", NEEDLESS_PLUGINS)
def test_a_needless_plugin_is_passed_over(kind: str) -> None:
    config = read(f"plugins: [{{type: {kind}, parameters: {{x: 1}}}}]")

    assert config.policy == "multiplicative"
    assert config.warnings[0] == f"f:3:18: {kind} has no meaning here: {NEEDLESS_PLUGINS[kind]}"


@pytest.mark.parametrize(("kind", "parameters"), NEEDLESS_PARAMETERS.items())
def test_a_needless_parameter_is_passed_over(kind: str, parameters: dict[str, str]) -> None:
    given = ", ".join(f"{name}: 1" for name in parameters)

    warnings = [
        line.split(": ", 1)[1] for line in read(f"plugins: [{{type: {kind}, parameters: {{{given}}}}}]").warnings
    ]

    assert {f'"{name}" has no meaning here: {why}' for name, why in parameters.items()} <= set(warnings)


@pytest.mark.parametrize(
    ("older", "newer"), [*RENAMED.items(), *((kind, DEPRECATED[kind]) for kind in DEPRECATED if kind != "by-label")]
)
def test_an_older_plugin_type_still_works_and_names_the_newer_one(older: str, newer: str) -> None:
    assert read(f"plugins: [{{type: {older}}}]").warnings[0] == f"f:3:18: {older} is deprecated; say {newer}"


def test_precise_matching_without_a_tokenizer_is_pointed_out() -> None:
    producer = "{type: precise-prefix-cache-producer}"
    models = "{type: picker-settings, parameters: {models: {qwen: /models/qwen}}}"
    point = (
        "f:3:11: precise-prefix-cache-producer needs `models` in picker-settings: without, prefixes are matched as text"
    )

    assert point in read(f"plugins: [{producer}]").warnings
    assert point not in read(f"plugins: [{producer}, {models}]").warnings


@pytest.mark.parametrize(
    ("plugins", "destinations"),
    [
        ("{type: max-score-picker}", 1),
        ("{type: queue-scorer}", 1),
        ("{type: queue-scorer}, {type: picker-settings, parameters: {destinations: 4}}", 4),
        ("{type: jsq-policy}, {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}", 2),
        ("{type: jsq-policy}", 3),
        ("", 3),
    ],
)
def test_plugins_of_llmd_that_do_not_say_mean_one_destination(plugins: str, destinations: int) -> None:
    assert read(f"plugins: [{plugins}]").settings.destinations == destinations


def test_the_settings_are_parameters_of_picker_settings() -> None:
    config = read("""
plugins:
- type: picker-settings
  parameters:
    responsePath: echo
    destinations: 1
    steeringFields: refuse
    maxBodyBytes: 65536
    models: {qwen: /models/qwen}
    drainTimeoutSeconds: 5
    scrapeIntervalSeconds: 0.5
""")

    assert config.settings == Settings(
        response_path="echo",
        destinations=1,
        steering_fields="refuse",
        max_body_bytes=65536,
        models={"qwen": "/models/qwen"},
        drain_timeout_seconds=5.0,
        scrape_interval_seconds=0.5,
    )
    assert config.policy == "multiplicative"


def test_the_older_api_version_is_read_with_a_warning() -> None:
    config = read_config("apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n", "f")

    assert config.warnings == ("f:1:13: inference.networking.x-k8s.io/v1alpha1 is deprecated; say llm-d.ai/v1alpha1",)


def test_older_prefix_parameters_are_read_with_a_warning() -> None:
    config = read("plugins: [{type: prefix-cache-scorer, parameters: {hashBlockSize: 64}}]")

    assert config.warnings == ('f:3:52: "hashBlockSize" has no meaning here: blocks are those of the engines',)


def test_a_harmless_feature_gate_is_read_with_a_warning() -> None:
    config = read("featureGates: [haPopulateNonLeaderDatastore]")

    assert config.warnings == ("f:3:16: feature gate haPopulateNonLeaderDatastore has no meaning here",)


def test_a_weight_on_what_is_not_a_scorer_is_a_warning() -> None:
    config = read("""
plugins: [{type: jsq-policy}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: jsq-policy, weight: 2}]}]
""")

    assert config.policy == "jsq"
    assert config.warnings == ('f:4:74: weight of "jsq-policy" has no meaning: only scorers are weighed',)


@pytest.mark.parametrize(
    ("plugin", "token"),
    [
        ("{type: queue-scorer}", False),
        ("{type: session-affinity-scorer}", True),
        ("{type: session-affinity-filter}", True),
        ("{type: session-affinity-filter, parameters: {strategy: session_id}}", False),
        ("{type: session-affinity-scorer, parameters: {algorithm: session_id_header}}", False),
    ],
)
def test_answers_carry_a_session_token_where_sessions_come_back_by_it(plugin: str, token: bool) -> None:
    header = read(f"plugins: [{plugin}]").exchange_settings().answer_header

    assert (header("10.0.0.1:8000") if header else None) == (
        ("x-session-token", "MTAuMC4wLjE6ODAwMA==") if token else None
    )


# What every mistake answers


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


# The page


PAGE = (Path(__file__).parents[2] / "docs" / "config.md").read_text()


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_files_on_the_page_are_read_without_a_warning(text: str) -> None:
    assert read_config(text).warnings == ()


def test_every_setting_is_on_the_page() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    assert named == {field.encode_name for field in msgspec.structs.fields(Settings)}


# The file


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "epp.yaml"
    path.write_text(HEAD + LLMD)

    assert load_config(path).policy == "composed"


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "epp.yaml"
    path.write_text(HEAD + "plugin: []")

    with pytest.raises(ConfigError, match=r'epp\.yaml:3:1: unknown field "plugin"; did you mean "plugins"\?'):
        load_config(path)


def test_a_missing_file_and_a_folder_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "epp.yaml"
    path.write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="not UTF-8 at byte 0"):
        load_config(path)


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
