"""helm and kubectl, bound to one namespace of one API server."""

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from api_servers import TOOLS, Api

TIMEOUT_S = 60.0
_numbers = itertools.count()


class Failed(Exception):
    """A command that ended with an error; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace."""

    api: Api
    namespace: str

    def kubectl(self, *words: str | Path, stdin: str = "") -> str:
        """What kubectl printed. Raises Failed."""
        return self._run("kubectl", words, stdin)

    def helm(self, *words: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """What helm printed; `values` come as a values file. Raises Failed."""
        more = () if values is None else ("--values", "-")
        return self._run("helm", (*words, *more), "" if values is None else yaml.safe_dump(dict(values)))

    def apply(self, *manifests: Mapping[str, Any]) -> str:
        """Raises Failed."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all([dict(each) for each in manifests]))

    def get(self, what: str, name: str) -> dict[str, Any]:
        """Raises Failed."""
        found: dict[str, Any] = json.loads(self.kubectl("get", what, name, "-o", "json"))
        return found

    def names(self, what: str, selector: str = "") -> list[str]:
        """Names of the objects of one or, comma separated, several resources."""
        chosen = ("-l", selector) if selector else ()
        return self.kubectl("get", what, *chosen, "-o", "name").split()

    def argv(self, tool: str, *words: str | Path) -> list[str]:
        """A command of helm or kubectl in this namespace; run it with `env`."""
        return [str(TOOLS / tool), *map(str, words), "--namespace", self.namespace]

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.api.kubeconfig), "HOME": str(self.api.kubeconfig.parent)}

    def _run(self, tool: str, words: tuple[str | Path, ...], stdin: str) -> str:
        done = subprocess.run(
            self.argv(tool, *words),
            input=stdin,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            raise Failed(done.stderr + done.stdout)
        return done.stdout


@contextlib.contextmanager
def new_space(api: Api) -> Iterator[Space]:
    """A fresh namespace, deleted at the end."""
    space = Space(api, f"picker-test-{os.getpid()}-{next(_numbers)}")
    space.kubectl("create", "namespace", space.namespace)
    try:
        yield space
    finally:
        space.kubectl("delete", "namespace", space.namespace, "--wait=false")
