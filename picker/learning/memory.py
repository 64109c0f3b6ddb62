"""What of learning crosses processes and restarts, as named arrays: models, and all that a picker has learned.

Whoever sent them, arrays that are no model are an error, never a model that predicts nonsense.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from picker.engines.table import MAX_HARDWARE
from picker.learning import features, forest
from picker.learning.experience import EXPERIENCE, Experience, sane
from picker.learning.forest import Forest
from picker.learning.model import Correction, Model
from picker.learning.store import Arrays, StoreError, pack, unpack

CORRECTIONS = np.dtype([("endpoint", "u4"), ("log_ttft", "f8"), ("log_tpot", "f8"), ("rows", "i8")])
MAX_CORRECTIONS = 100_000
FORESTS = ("ttft_trees", "tpot_trees")
MODEL = "model/"
SHAPES = {
    "ttft_base": ("f8", (MAX_HARDWARE, len(features.TTFT_TERMS))),
    "tpot_base": ("f8", (MAX_HARDWARE, len(features.TPOT_TERMS))),
    "lowest": ("f4", (len(features.TREE_FEATURES),)),
    "highest": ("f4", (len(features.TREE_FEATURES),)),
}
"""Type and shape of a model's own arrays."""
MEANING = xxhash.xxh3_64_intdigest(
    repr((EXPERIENCE.descr, features.TTFT_TERMS, features.TPOT_TERMS, features.TREE_FEATURES))
)
"""Of the numbers in rows and models: what was learned of others tells nothing about these."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a picker has learned, as of `at_s` of its clock."""

    at_s: float
    rows: Experience
    hardware: tuple[str, ...]
    """Names of the classes that rows and model number."""
    model: Model | None


def to_arrays(model: Model) -> dict[str, NDArray[Any]]:
    """A model's arrays by name."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(model, name) for name in SHAPES}
    arrays["counts"] = np.array([model.version, model.rows])
    arrays["corrections"] = np.array(
        [(endpoint, c.log_ttft, c.log_tpot, c.rows) for endpoint, c in model.corrections.items()], CORRECTIONS
    )
    for trees in FORESTS:
        arrays |= {f"{trees}/{name}": part for name, part in forest.arrays(getattr(model, trees)).items()}
    return arrays


def from_arrays(arrays: Arrays) -> Model:
    """The model of which these are the arrays. Raises ValueError for what is none."""
    try:
        version, rows = map(int, arrays["counts"])
        shaped = {name: arrays[name] for name in SHAPES}
        corrections = arrays["corrections"]
    except (LookupError, TypeError) as error:
        raise ValueError(f"not a model: {error}") from error
    for name, (dtype, shape) in SHAPES.items():
        if shaped[name].shape != shape or shaped[name].dtype != dtype or not np.isfinite(shaped[name]).all():
            raise ValueError(f"{name} is not that of a model")
    if (shaped["ttft_base"] < 0).any() or (shaped["tpot_base"] < 0).any():
        raise ValueError("a base that falls with work")
    if corrections.dtype != CORRECTIONS or corrections.ndim != 1 or len(corrections) > MAX_CORRECTIONS:
        raise ValueError("corrections are not those of a model")
    return Model(
        version=version,
        rows=rows,
        ttft_base=shaped["ttft_base"],
        tpot_base=shaped["tpot_base"],
        ttft_trees=_forest("ttft_trees", arrays),
        tpot_trees=_forest("tpot_trees", arrays),
        lowest=shaped["lowest"],
        highest=shaped["highest"],
        corrections={endpoint: Correction(*found) for endpoint, *found in corrections.tolist()},
    )


def packed(memory: Memory) -> bytes:
    """For disk."""
    model = {} if memory.model is None else to_arrays(memory.model)
    return pack(
        {
            "meaning": np.array(MEANING, np.uint64),
            "at_s": np.array(memory.at_s),
            "rows": memory.rows,
            "hardware": np.array(memory.hardware, np.str_),
            **{MODEL + name: array for name, array in model.items()},
        }
    )


def unpacked(data: bytes) -> Memory:
    """Raises StoreError for what another version wrote, or what is damaged."""
    arrays = unpack(data)
    try:
        if arrays["meaning"] != MEANING:
            raise StoreError("its features have another meaning")
        rows, hardware = arrays["rows"], arrays["hardware"].tolist()
        if rows.dtype != EXPERIENCE or rows.ndim != 1 or not sane(rows).all() or not hardware[0] == "":
            raise StoreError("its rows are no experience")
        learned = of_model(arrays)
        model = from_arrays(learned) if learned else None
        return Memory(float(arrays["at_s"]), rows, tuple(map(str, hardware[:MAX_HARDWARE])), model)
    except (LookupError, TypeError, ValueError) as error:
        raise StoreError(f"not what a picker learned: {error}") from error


def of_model(arrays: Arrays) -> dict[str, NDArray[Any]]:
    """Those of a model among others, where they are named MODEL..."""
    return {name.removeprefix(MODEL): array for name, array in arrays.items() if name.startswith(MODEL)}


def _forest(trees: str, arrays: Mapping[str, NDArray[Any]]) -> Forest:
    prefix = f"{trees}/"
    found = forest.from_arrays({n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)})
    if len(found) and found.features != len(features.TREE_FEATURES):
        raise ValueError(f"{trees} knows other features")
    return found
