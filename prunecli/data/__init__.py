"""Data: examples and targets in three splits, read once and prepared per batch.

Stage: data. In: a `DataConfig` and the shape of the model's input. Out: a `DataSet`. Never
trains, never downloads.
"""

from prunecli.data.batching import batches
from prunecli.data.checking import check_outputs
from prunecli.data.loss import fitted_targets, loss_of
from prunecli.data.opening import open_data
from prunecli.data.records import DataSet, Preprocess, Split, Task

__all__ = [
    "DataSet",
    "Preprocess",
    "Split",
    "Task",
    "batches",
    "check_outputs",
    "fitted_targets",
    "loss_of",
    "open_data",
]
