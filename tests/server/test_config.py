"""The configuration file: what is read."""

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from config_texts import HEAD, LLMD, read

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
)


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
    found: Any = config.params[part]
    return [tuple(step[key] for key in ("type", "weight", "parameters") if key in step) for step in found]


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
