"""A replay as one HTML file that needs nothing else: who won, how sure that is, and where to look.

The walk: `cells` reads the replay's JSON, `headline` says who won, `bounds` how far from random and from the
clairvoyant, `charts` and `over_time` draw (matplotlib, the extra `report`), `svg` makes the drawings fit for one page,
`page` puts all together.
"""

from picker.simulator.report.page import render

__all__ = ["render"]
