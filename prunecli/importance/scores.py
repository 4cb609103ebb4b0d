"""Scores of units, as they are handed from importance to selection.

Stage: importance. A plain record.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UnitScores:
    """How important every unit is; larger is more important.

    Attributes:
        raw: on the criterion's own scale, shape (units,); thresholds are compared with it. For a
            mixture the same as `normalised`.
        normalised: comparable across groups, shape (units,).
    """

    raw: Scores
    normalised: Scores
