"""When the guard trips and releases: shares, ratios, rows and seconds. Nothing here is a latency."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Raises ValueError for what makes no sense."""

    cold_rows: int = 50
    cold_predictions: int = 20
    """Rows that came with a prediction before the model may take over."""
    error_rows: float = 100.0
    """Latest rows that errors are compared over."""
    error_trip: float = 0.95
    """Mean |log error| of the model over the baseline's."""
    error_release: float = 0.85
    insane_trip: float = 0.2
    """Share of the latest `error_rows` rows that cannot be learned from."""
    insane_release: float = 0.05
    canary_share: float = 0.02
    wary_share: float = 0.05
    """The rule's share while too few of its picks are known, or they look better."""
    wary_z: float = 1.5
    canary_z: float = 3.25
    canary_margin: float = 0.02
    """Log TTFT that the model may cost its own requests for what it spares the others."""
    canary_fewest: float = 30.0
    canary_window_s: float = 600.0
    canary_window_rows: float = 10_000.0
    saturation_look_back_s: float = 10.0
    saturation_prefills: float = 4.0
    """Wait at the least queued endpoints, in prefills of a usual request."""
    stay_s: float = 30.0
    longest_stay_s: float = 1800.0

    def __post_init__(self) -> None:
        numbers = [float(getattr(self, name)) for name in self.__slots__]
        if not all(math.isfinite(number) and number > 0 for number in numbers):
            raise ValueError("guard settings must be finite and above zero")
        if not self.canary_share <= self.wary_share <= 0.5:
            raise ValueError("canary_share must not exceed wary_share, nor that one half")
        if self.error_release > self.error_trip or self.insane_release > self.insane_trip:
            raise ValueError("a guard must not release above where it trips")
        if min(self.error_rows, self.canary_window_rows) <= 1 or self.stay_s > self.longest_stay_s:
            raise ValueError("windows must be longer than one row, longest_stay_s not below stay_s")


DEFAULTS = GuardSettings()
