"""Envoy's side of the conversation and rows of experience are written down once, beside their rooms' own tests."""

import sys
from pathlib import Path

for room in ("exchange", "learning"):
    sys.path.append(str(Path(__file__).parent.parent / room))
