"""The metrics of torchmetrics that tasks use.

Stage: tasks. In: nothing. Out: classes. torchmetrics imports torchvision wherever that is
installed, so what may be missing there is declared first.
"""

from prunecli.compat import declare_missing_operators

declare_missing_operators()

from torchmetrics import Metric as Gauge  # noqa: E402 (importable only now)
from torchmetrics import metric as _metric  # noqa: E402
from torchmetrics.classification import (  # noqa: E402
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.regression import MeanSquaredError, R2Score  # noqa: E402

# Several processes score the same examples, or only one scores a file while the others do something
# else: metrics, the user's own too, must not wait for those of the others and add them up.
_metric.jit_distributed_available = lambda: False

__all__ = [
    "Gauge",
    "MeanSquaredError",
    "MulticlassAccuracy",
    "MulticlassF1Score",
    "MulticlassJaccardIndex",
    "MultilabelAveragePrecision",
    "MultilabelF1Score",
    "R2Score",
]
