"""The trainer process: one turn is rows in on standard input, if there are any, then what came of them out on standard
output.

It holds nothing that its parent does not: killed, it is started again and told everything anew. It trains when its turn
makes a round due, so its answer may take a second; its parent waits for it off the serving path. Imports only what
training needs.
"""

import ctypes
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from typing import BinaryIO, TypeVar

import numpy as np

from picker.learning.memory import MODEL, from_arrays, of_model, to_arrays
from picker.learning.model import Model
from picker.learning.rounds import Rounds
from picker.learning.store import MAX_BYTES, Arrays, StoreError, pack, unpack
from picker.learning.trainer import Trainer
from picker.learning.training import Parts, errors
from picker.learning.window import Window

M = TypeVar("M")

COUNTS = ("insane", "rounds", "rejected", "failed")
"""What the array `counts` of an answer holds of `Counts`: of this process, from its start."""
FORGET = np.dtype([("endpoint", "u4"), ("before_s", "f8")])
"""Of the array `forget` of a question: endpoints that changed, and when."""
NICENESS = 10
LENGTH = struct.Struct("<I")
PR_SET_PDEATHSIG = 1


def framed(message: bytes) -> bytes:
    """A message with its length before it."""
    return LENGTH.pack(len(message)) + message


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next message; None at the end of the stream. Raises StoreError for one that is cut off or too long."""
    head = stream.read(LENGTH.size)
    if not head:
        return None
    length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else MAX_BYTES + 1
    message = stream.read(length) if length <= MAX_BYTES else b""
    if len(message) != length:
        raise StoreError("a message that is cut off or too long")
    return message


def take_turns(
    asked: BinaryIO,
    answered: BinaryIO,
    begin: Callable[[Arrays], Trainer[M]],
    encode: Callable[[M], Arrays],
    clock: Callable[[], float],
) -> None:
    """Answer until `asked` ends. `begin` makes the trainer of what the first message tells. Raises StoreError."""
    trainer: Trainer[M] | None = None
    while (message := read_frame(asked)) is not None:
        told = unpack(message)
        if trainer is None:
            trainer = begin(told)
        else:
            if "rows" in told:
                trainer.add(told["rows"])
            for endpoint, before_s in told["forget"].tolist() if "forget" in told else ():
                trainer.forget(endpoint, before_s)
        before, since = trainer.version, clock()
        model = trainer.poll(since)
        counts = [getattr(trainer.counts, name) for name in COUNTS]
        answer = {"counts": np.array(counts), "version": np.array(trainer.version)}
        if trainer.version != before:
            answer["round_s"] = np.array(clock() - since)
        if model is not None:
            answer |= {MODEL + name: array for name, array in encode(model).items()}
        answered.write(framed(pack(answer)))
        answered.flush()


def lower_ourselves() -> None:
    """Yield to everything else, and go when our parent does (Linux), even if it was killed."""
    os.nice(NICENESS)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def wish(parts: Parts) -> Arrays:
    """What models shall be made of, for the first message."""
    return {"parts": np.array(astuple(parts), np.int64)}


def begun(told: Arrays) -> Trainer[Model]:
    """A trainer that goes on from what its parent knows."""
    window = Window()
    window.add(told["rows"])
    base, trees, corrections, tree_count, leaves = told["parts"].tolist()
    parts = Parts(bool(base), bool(trees), bool(corrections), tree_count, leaves)
    known = of_model(told)
    model = from_arrays(known) if known else None
    return Trainer(Rounds(parts), errors, window, model=model, version=int(told["version"]))


def main() -> None:
    """Until standard input ends."""
    lower_ourselves()
    # Libraries that print must not do so into the answers.
    with os.fdopen(os.dup(1), "wb") as answered:
        os.dup2(2, 1)
        take_turns(sys.stdin.buffer, answered, begun, to_arrays, time.monotonic)


if __name__ == "__main__":
    main()
