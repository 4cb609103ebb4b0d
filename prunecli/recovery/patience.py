"""Early stopping: how long a training has brought nothing.

Stage: recovery. In: scores. Out: a number. Pure functions of the curve, so that a run that was
interrupted decides as it would have.
"""

from collections.abc import Sequence

from prunecli.metric import Metric


def waited(metric: Metric, scores: Sequence[float]) -> int:
    """How many of the last scores were not better than the best before them.

    A score that equals the best is not better: a network that has stopped to change would else
    never be stopped.
    """
    best = 0
    for place, value in enumerate(scores):
        if not metric.at_least_as_good(scores[best], value):
            best = place
    return max(len(scores) - 1 - best, 0)
