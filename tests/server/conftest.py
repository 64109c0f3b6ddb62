"""Envoy's side of the conversation, an HTTP/2 client and rows of experience stand beside their rooms' own tests."""

import sys
from pathlib import Path

for room in ("exchange", "learning", "wire"):
    sys.path.append(str(Path(__file__).parent.parent / room))
