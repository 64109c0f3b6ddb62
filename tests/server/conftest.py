"""Envoy's side of the conversation is written down once, beside the exchange's own tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "exchange"))
