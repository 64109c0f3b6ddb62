"""`python e2e/charts/plain_manifest.py > manifests/picker.yaml`: the chart's picker for those who do without helm."""

import re
import subprocess
import sys
from pathlib import Path

from api_servers import ROOT, TOOLS

RELEASE, NAMESPACE = "chat", "inference"
OF_HELM = re.compile(r"^\s*(app\.kubernetes\.io/managed-by|helm\.sh/chart): .*\n", re.MULTILINE)
HEADER = """\
# Rendered from charts/picker with the values in picker-values.yaml (`make manifests`).
"""


def plain() -> str:
    """The manifests, without what only helm reads. Raises CalledProcessError when helm refuses."""
    values, chart = ROOT / "manifests" / "picker-values.yaml", ROOT / "charts" / "picker"
    argv: list[str | Path] = [TOOLS / "helm", "template", RELEASE, chart, "--namespace", NAMESPACE, "--values", values]
    rendered = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60).stdout
    return HEADER + OF_HELM.sub("", rendered)


if __name__ == "__main__":
    sys.stdout.write(plain())
