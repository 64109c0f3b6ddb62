"""A trainer program whose models are the mean TTFT of all rows. Its argument says how it misbehaves."""

import os
import sys
import time

import numpy as np

from picker.learning.experience import Experience
from picker.learning.store import Arrays
from picker.learning.trainer import Cadence, Trainer
from picker.learning.window import Window
from picker.server.trainer import lower_ourselves, take_turns

POISON_MS = 666.0
"""A row that took so long kills it."""


def mean(rows: Experience, version: int) -> np.ndarray:
    if (rows["ttft_ms"] == POISON_MS).any():
        os.abort()
    return np.array([version, len(rows), rows["ttft_ms"].mean()])


def begin(told: Arrays) -> Trainer[np.ndarray]:
    window = Window()
    window.add(told["rows"])
    cadence = Cadence(first_rows=1, soonest_s=0.0, latest_s=0.0, least_rows=1)
    return Trainer(mean, lambda model, rows: np.ones(len(rows)), window, cadence, version=int(told["version"]))


def encode(model: np.ndarray) -> Arrays:
    return {"mean": model}


def decode(arrays: Arrays) -> np.ndarray:
    return arrays["mean"]


if __name__ == "__main__":
    lower_ourselves()
    manner = sys.argv[1]
    if manner == "silent":
        time.sleep(3600)
    elif manner == "mad":
        os.write(1, b"what a beautiful day, said the trainer")
    else:
        take_turns(sys.stdin.buffer, sys.stdout.buffer, begin, encode, time.monotonic)
