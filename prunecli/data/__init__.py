"""Data: examples and targets in three splits, read once and prepared per batch.

Stage: data. In: a `DataConfig` and the shape of the model's input. Out: a `DataSet`. Never
trains, never downloads.
"""

from prunecli.data.batching import batches
from prunecli.data.opening import open_data
from prunecli.data.records import DataSet, Preprocess, Split
from prunecli.data.wanted import Processor

__all__ = ["DataSet", "Preprocess", "Processor", "Split", "batches", "open_data"]
