"""Writes the workload of this folder: `python e2e/ranking/make_workload.py > e2e/ranking/workload.jsonl`.

Made so that policies part clearly on four L40S at 70 to 80 % of their time. Nine requests of ten begin with the prefix
of one of 24 groups, 4k to 8k tokens long, and go on by themselves for 100 to 1,536: whoever looks at prefixes computes
less. One of ten has 14k to 22k tokens of its own: whoever counts tokens instead of requests sends nobody behind it.
"""

import json
import random

REQUESTS = 240
SPAN_MS = 48_000
GROUPS = 24
ID_TOKENS = 512
ROUNDED_MS = 3000


def main() -> None:
    draw = random.Random(11)
    fresh = iter(range(1, 1 << 18))

    def blocks(fewest: int, most: int) -> list[int]:
        return [next(fresh) for _ in range(draw.randint(fewest, most))]

    prefixes = [blocks(8, 16) for _ in range(GROUPS)]
    for index in range(REQUESTS):
        alone = draw.random() < 0.1
        ids = blocks(28, 44) if alone else draw.choice(prefixes) + blocks(1, 3)
        row = {
            "timestamp": SPAN_MS * index // REQUESTS // ROUNDED_MS * ROUNDED_MS,
            "input_length": ID_TOKENS * len(ids) - draw.randrange(400),
            "output_length": draw.randint(4, 24),
            "hash_ids": ids,
        }
        print(json.dumps(row, separators=(",", ":")))


if __name__ == "__main__":
    main()
