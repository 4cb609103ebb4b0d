"""Recovery: the pruned graph learns again what the cut took away."""

from prunecli.recovery.finetuning import finetune
from prunecli.recovery.mode import set_training, training_mode
from prunecli.recovery.optimizer import check_training
from prunecli.recovery.placement import choose_device
from prunecli.recovery.reconstruction import affordable, reconstruct
from prunecli.recovery.records import Epoch, TrainResult
from prunecli.recovery.scoring import MetricName, score

__all__ = [
    "Epoch",
    "MetricName",
    "TrainResult",
    "affordable",
    "check_training",
    "choose_device",
    "finetune",
    "reconstruct",
    "score",
    "set_training",
    "training_mode",
]
