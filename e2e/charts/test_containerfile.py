"""What a linter would ask of the Containerfile, and what the chart relies on."""

import json
import re
import tomllib

from chart_rendering import PODS, ROOT, STANDALONE, render
from containerfile import environment, instructions
from packaging.requirements import Requirement

LINES = instructions((ROOT / "Containerfile").read_text())
BUILD, FINAL = 0, max(each.stage for each in LINES)


def of(word: str, stage: int = FINAL) -> list[str]:
    return [each.text for each in LINES if each.word == word and each.stage == stage]


def test_it_is_built_in_two_stages_from_images_of_one_named_version() -> None:
    images = [of("FROM", stage)[0].split()[0] for stage in (BUILD, FINAL)]
    versions = [re.fullmatch(r"docker\.io/library/python:(\d+\.\d+\.\d+)(?:-slim)?-bookworm", each) for each in images]
    assert FINAL == 1
    assert len({version and version[1] for version in versions} - {None}) == 1
    assert "-slim-" in images[FINAL]


def test_nothing_runs_in_the_last_stage_and_nobody_is_root_there() -> None:
    assert of("RUN") == []
    assert of("USER") == ["65532:65532"]
    assert render(PODS).pod["securityContext"]["runAsUser"] == 65532


def test_nothing_comes_from_outside_but_wheels_that_are_pinned() -> None:
    words = {each.word for each in LINES}
    (install,) = [text for text in of("RUN", BUILD) if "install" in text]
    assert "ADD" not in words
    assert not any(tool in text for text in of("RUN", BUILD) for tool in ("curl", "wget", "apt-get", "git "))
    assert "--only-binary :all: -c constraints.txt" in install


def test_every_dependency_is_pinned_inside_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {Requirement(line).name.lower().replace("_", "-"): Requirement(line) for line in lines}
    for wanted in map(Requirement, project["dependencies"]):
        (pin,) = pins[wanted.name.lower().replace("_", "-")].specifier
        assert pin.operator == "=="
        assert wanted.specifier.contains(pin.version), f"{wanted} is pinned to {pin.version}"


def test_only_what_is_copied_is_sent_to_the_builder() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {word for text in of("COPY", BUILD) for word in text.split()[:-1]}
    assert sent == copied
    assert all((ROOT / name).exists() for name in copied)


def test_flags_of_the_peers_follow_the_entrypoint() -> None:
    assert [json.loads(text) for text in of("ENTRYPOINT")] == [["picker", "serve"]]
    assert of("CMD") == []
    assert "command" not in render(PODS).container("epp")


def test_the_chart_copies_the_kernels_from_where_the_image_has_them() -> None:
    _, _, source, target = render(STANDALONE).container("kernels")["command"]
    used = {each["name"]: each.get("value") for each in render(PODS).container("epp")["env"]}
    assert source == environment(FINAL)["NUMBA_CACHE_DIR"] + "/."
    assert target == used["NUMBA_CACHE_DIR"]


def test_kernels_are_compiled_for_the_processor_that_the_image_asks_for() -> None:
    names = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
    built, run = environment(BUILD), environment(FINAL)
    assert [built[name] for name in names] == [run[name] for name in names] == ["x86-64-v3", ""]


def test_the_version_of_the_chart_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert render(PODS).container("epp")["image"] == f"picker:{project['version']}"
