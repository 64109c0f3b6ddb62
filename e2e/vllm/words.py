"""Prompt text of a wanted length."""

import random

WORDS = (
    "river stone lamp garden window copper train letter winter bridge painter salt harbour engine paper meadow clock "
    "thread mountain bell orchard lantern market glass feather tower island kettle forest mirror"
)


def sentence(words: int, seed: int = 0) -> str:
    """`words` words drawn by `seed`, about 1.3 tokens each."""
    return " ".join(random.Random(seed).choices(WORDS.split(), k=words)).capitalize() + "."
