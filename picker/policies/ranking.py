"""Rules of the form "sort by this, then by that", as one cost."""

import numpy as np

from picker.engines.rows import Column


def lexicographic(*keys: Column) -> Column:
    """Dense ranks, shape (N,), 0 is best: by the first key, its ties by the second, and so on.

    Smaller is better in every key. Rows equal in all keys share one rank, so that the caller's draw decides.

    >>> import numpy as np
    >>> lexicographic(np.array([1.0, 0.0, 0.0, 0.0]), np.array([5.0, 9.0, 7.0, 7.0]))
    array([2., 1., 0., 0.])
    """
    order = np.lexsort(keys[::-1])
    rises = np.zeros(len(order), dtype=bool)
    for key in keys:
        ordered = key[order]
        rises[1:] |= ordered[1:] != ordered[:-1]
    ranks = np.empty(len(order))
    ranks[order] = np.cumsum(rises)
    return ranks
