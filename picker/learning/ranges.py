"""Where a model was trained, and where it would have to guess."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]

SLACK = 2.0
"""How far outside the trained range the model may still decide, in widths of that range. The base extrapolates; what
hurts is to change between two deciders from pick to pick: each finds the queues that the other made, and the rule sends
long prompts to slow engines that the model had kept free."""


def outside(features: Features, lowest: Features, highest: Features, slack: float = 0.1) -> NDArray[np.bool_]:
    """Which endpoints, shape (N,), have a feature beyond the trained range by more than `slack` of its width.

    `features` has shape (F, N), the bounds (F,). A feature that never varied in training must stay what it was. What is
    not finite is outside.
    """
    least, most = bounds(lowest, highest, slack)
    within = (features >= least[:, None]) & (features <= most[:, None])
    return ~np.asarray(within.all(axis=0), np.bool_)


def bounds(lowest: Features, highest: Features, slack: float) -> tuple[Features, Features]:
    """Least and greatest value of each feature, (F,), that is not outside."""
    margin = slack * (highest - lowest)
    return lowest - margin, highest + margin


def unknown_ground(outside: NDArray[np.bool_], row: int) -> bool:
    """Whether the pick falls to the rule: the model would choose a row outside, or more than half of all are."""
    return bool(outside[row]) or 2 * int(np.count_nonzero(outside)) > len(outside)
