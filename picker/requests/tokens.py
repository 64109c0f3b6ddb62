"""Prompt length in tokens where no tokenizer is at hand: bytes over a ratio learned per model from answers."""

from collections import OrderedDict

DEFAULT_RATIO = 4.0
LEAST_RATIO, MOST_RATIO = 1.0, 16.0
PRIOR_TOKENS = 512.0
"""Weight of the default ratio before anything was seen."""
MEMORY_TOKENS = 20_000.0
"""Evidence fades to this many tokens, so a model's ratio follows its traffic."""
MOST_TOKENS_EACH = 4096.0
"""One prompt's weight at most: no single long or lying answer moves the ratio far."""


class Ratios:
    """Bytes per token of each model, as a quotient of fading sums. Bounded: the model not seen for longest goes."""

    def __init__(self, default: float = DEFAULT_RATIO, models: int = 1024) -> None:
        self.default = default
        self._models = models
        self._sums: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def ratio(self, model: str) -> float:
        """Bytes per token; the default for a model not seen."""
        sums = self._sums.get(model)
        return self.default if sums is None else sums[0] / sums[1]

    def observe(self, model: str, prompt_bytes: int, prompt_tokens: int) -> None:
        """An answer told how many tokens its prompt was. Figures that cannot be are bent into 1..16 bytes per token.

        >>> ratios = Ratios()
        >>> for _ in range(100):
        ...     ratios.observe("m", 3000, 1000)
        >>> round(ratios.ratio("m"), 2)
        3.0
        """
        if prompt_bytes <= 0 or prompt_tokens <= 0:
            return
        told = min(MOST_RATIO, max(LEAST_RATIO, prompt_bytes / prompt_tokens))
        tokens = min(prompt_bytes / told, MOST_TOKENS_EACH)
        seen_bytes, seen_tokens = self._sums.pop(model, (PRIOR_TOKENS * self.default, PRIOR_TOKENS))
        fade = min(1.0, MEMORY_TOKENS / (seen_tokens + tokens))
        self._sums[model] = ((seen_bytes + tokens * told) * fade, (seen_tokens + tokens) * fade)
        if len(self._sums) > self._models:
            self._sums.popitem(last=False)

    def __len__(self) -> int:
        return len(self._sums)
