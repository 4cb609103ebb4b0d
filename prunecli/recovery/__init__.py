"""Recovery: the pruned graph learns again what the cut took away."""

from prunecli.recovery.applying import changes_for
from prunecli.recovery.companion import Companion, chain
from prunecli.recovery.damage import damage
from prunecli.recovery.densify import DenseAtEnd
from prunecli.recovery.driving import check_driving
from prunecli.recovery.finetuning import finetune
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import KeepMasks, Masks
from prunecli.recovery.mode import set_training, training_mode
from prunecli.recovery.norm_statistics import reestimate
from prunecli.recovery.objective import Teacher
from prunecli.recovery.optimizer import check_training
from prunecli.recovery.penalties import Penalised, SparseTraining
from prunecli.recovery.placement import choose_device
from prunecli.recovery.rates import default_lr
from prunecli.recovery.reconstruction import affordable, reconstruct
from prunecli.recovery.records import Epoch, TrainResult
from prunecli.recovery.scoring import score
from prunecli.recovery.soft_units import unit_masks

__all__ = [
    "Companion",
    "DenseAtEnd",
    "Epoch",
    "Gradual",
    "KeepMasks",
    "Masks",
    "Penalised",
    "SparseTraining",
    "Teacher",
    "TrainResult",
    "affordable",
    "chain",
    "changes_for",
    "check_driving",
    "check_training",
    "choose_device",
    "damage",
    "default_lr",
    "finetune",
    "reconstruct",
    "reestimate",
    "score",
    "set_training",
    "training_mode",
    "unit_masks",
]
