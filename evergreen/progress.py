"""How a node tells what it is doing: one short figure at a time, over the standard `logging` module.

An executor calls `report("120,000 rows")`. On a cluster the line lands in the pod's log. The local runner puts a
handler on the logger named `LOGGER` and shows the latest figure beside the node. No state is kept here.
"""

from __future__ import annotations

import logging

LOGGER = "evergreen.progress"


def report(figure: str) -> None:
    """Reports one telling figure of the work under way, for example ``"epoch 3/10, loss 2.01"``."""
    logging.getLogger(LOGGER).info(figure)
