"""Traffic for tests: requests of two kinds, and engines they fit on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from picker.stages.lengths import Lengths, Traffic
from picker.stages.step_model import StepModel

ENGINE = StepModel(
    fixed_ms=6.0, decode_ms=0.02, context_ms=40.0, prefill_ms=0.02, work_ms=0.9, alpha=0.5, kv_tokens=2e6
)
EVEN = replace(ENGINE, alpha=0.0)
Asked = tuple[float, float, float]


def chats_and_documents(seed: int = 0, number: int = 800, documents: float = 0.2) -> list[Asked]:
    """(prompt, new, output) of short chats and of documents of some 60,000 tokens with longer answers."""
    rng = np.random.default_rng(seed)
    asked = []
    for _ in range(number):
        long = rng.random() < documents
        prompt = float(rng.lognormal(11.0 if long else 6.5, 0.4))
        asked.append((prompt, prompt / 10 if long else prompt, float(rng.lognormal(6.0, 0.5))))
    return asked


def recorded(asked: Sequence[Asked], *, longest: int = 1 << 17, over_s: float = 60.0, stay: bool = True) -> Lengths:
    """As seen evenly over so many seconds."""
    lengths = Lengths(longest)
    lengths.fade(0.0)
    for i, (prompt, new, output) in enumerate(asked):
        lengths.fade((i + 1) * over_s / len(asked))
        lengths.add(prompt, new, output, prompt + output if stay else None)
    return lengths


def traffic_of(asked: Sequence[Asked], *, longest: int = 1 << 17, over_s: float = 60.0, stay: bool = True) -> Traffic:
    return recorded(asked, longest=longest, over_s=over_s, stay=stay).traffic()
