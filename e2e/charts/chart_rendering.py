"""The chart as the real helm renders it: values in, manifests out."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "picker"
HELM = ROOT / ".cache" / "kube-tools" / "helm"
RELEASE, NAMESPACE = "chat", "llm"
NAME = f"{RELEASE}-epp"
Manifest = dict[str, Any]


class Refused(Exception):
    """helm did not take the values; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What one install would apply."""

    manifests: tuple[Manifest, ...]

    def of(self, kind: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        (only,) = self.of(kind)
        return only

    @property
    def service(self) -> Manifest:
        """The Service to which requests, or a gateway's questions, go."""
        return next(each for each in self.of("Service") if each["metadata"]["name"] == NAME)

    @property
    def pod(self) -> Manifest:
        spec: Manifest = self.one("Deployment")["spec"]["template"]["spec"]
        return spec

    def container(self, name: str) -> Manifest:
        both = [*self.pod["initContainers"], *self.pod["containers"]]
        return next(each for each in both if each["name"] == name)

    @property
    def flags(self) -> dict[str, str]:
        """Arguments of the picker, without their dashes."""
        pairs = (argument.removeprefix("--").partition("=") for argument in self.container("epp")["args"])
        return {name: value for name, _, value in pairs}


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, the later over the earlier."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            nested = isinstance(value, Mapping) and isinstance(whole.get(key), Mapping)
            whole[key] = merged(whole[key], value) if nested else value
    return whole


def at(path: str, value: Any) -> dict[str, Any]:
    """`value` under the dotted path."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


PODS = at("router.modelServers.matchLabels", {"app": "vllm"})
"""The one thing that must be said."""
STANDALONE = merged(PODS, at("router.proxy.enabled", True))


def render(*values: Mapping[str, Any], namespace: str = NAMESPACE) -> Rendered:
    """The manifests for these values. Raises Refused."""
    text = _helm("template", *values, more=("--namespace", namespace))
    return Rendered(tuple(each for each in yaml.safe_load_all(text) if each))


def notes(*values: Mapping[str, Any]) -> str:
    """What is printed after an install with these values."""
    text = _helm("install", *values, more=("--namespace", NAMESPACE, "--dry-run=client"))
    return text.partition("NOTES:\n")[2]


def _helm(command: str, *values: Mapping[str, Any], more: tuple[str, ...]) -> str:
    done = subprocess.run(
        [HELM, command, RELEASE, CHART, "--values", "-", *more],
        input=yaml.safe_dump(merged(*values)),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout
