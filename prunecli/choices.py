"""Everything the user can choose by name, and which choices go together.

Stage: choices. In and out: nothing but names. Never imports torch.
"""

from collections.abc import Mapping
from enum import StrEnum


class Strategy(StrEnum):
    """What kind of thing is removed."""

    STRUCTURED = "structured"
    NEURON = "neuron"
    LAYER = "layer"
    WEIGHT = "weight"


class Criterion(StrEnum):
    """How importance is judged. See `prunecli.importance` for formulas and papers."""

    L1 = "l1"
    L2 = "l2"
    LINF = "linf"
    RANDOM = "random"
    VARIANCE = "variance"
    BN_SCALE = "bn-scale"
    FPGM = "fpgm"
    LAMP = "lamp"
    GRADIENT = "gradient"
    TAYLOR = "taylor"
    FISHER = "fisher"
    MOVEMENT = "movement"
    WEIGHT_CHANGE = "weight-change"
    SNIP = "snip"
    WANDA = "wanda"
    ACTIVATION = "activation"
    APOZ = "apoz"
    ACTIVATION_VARIANCE = "activation-variance"
    RECONSTRUCTION = "reconstruction"
    SIMILARITY = "similarity"
    LOSS = "loss"


class Scope(StrEnum):
    """What scores are compared with."""

    GLOBAL = "global"
    LOCAL = "local"
    ISOMORPHIC = "isomorphic"


class PruneSchedule(StrEnum):
    """When things are removed."""

    ONE_SHOT = "one-shot"
    ITERATIVE = "iterative"
    GRADUAL = "gradual"


class Curve(StrEnum):
    """How sparsity rises in gradual pruning."""

    POLYNOMIAL = "polynomial"
    LINEAR = "linear"
    COSINE = "cosine"
    EXPONENTIAL = "exponential"


class Penalty(StrEnum):
    """What sparse training before pruning adds to the loss."""

    L1 = "l1"
    GROUP_LASSO = "group-lasso"
    NORM_SCALE = "norm-scale"


class Storage(StrEnum):
    """How masked weights are written into the ONNX file."""

    SPARSE = "sparse"
    DENSE = "dense"


class Recovery(StrEnum):
    """What is done for accuracy before any training."""

    RECONSTRUCT = "reconstruct"
    BN = "bn"
    NONE = "none"


class TaskName(StrEnum):
    """What a network is trained for, where it is one thing and nothing of the user's own."""

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    SEGMENTATION = "segmentation"
    TOKEN_CLASSIFICATION = "token-classification"
    LANGUAGE_MODELLING = "language-modelling"
    MASKED_LANGUAGE_MODELLING = "masked-language-modelling"
    MATCH = "match"


class OptimizerName(StrEnum):
    """Optimizers for fine-tuning whose rate was chosen here; the name of any other class in
    `torch.optim` is good too."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    NESTEROV = "nesterov"
    ADAM = "adam"
    ADAMW = "adamw"
    RMSPROP = "rmsprop"
    ADAGRAD = "adagrad"


class ScheduleName(StrEnum):
    """Learning-rate schedules for fine-tuning."""

    ONE_CYCLE = "one-cycle"
    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"
    STEP = "step"
    EXPONENTIAL = "exponential"


class TrainScope(StrEnum):
    """Which layers fine-tuning changes, unless patterns name them."""

    ALL = "all"
    LOCAL = "local"


class Augment(StrEnum):
    """How much training examples are changed at random."""

    AUTO = "auto"
    NONE = "none"
    LIGHT = "light"
    STANDARD = "standard"
    STRONG = "strong"


class Precision(StrEnum):
    """Numbers that training computes with."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class DeviceName(StrEnum):
    """Where fine-tuning runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Quantity(StrEnum):
    """What a target counts."""

    MACS = "macs"
    PARAMS = "params"
    CHANNELS = "channels"


_OF_WEIGHTS = (Criterion.L1, Criterion.L2, Criterion.LINF, Criterion.RANDOM, Criterion.VARIANCE)
_OF_GRADIENTS = (
    Criterion.GRADIENT,
    Criterion.TAYLOR,
    Criterion.FISHER,
    Criterion.SNIP,
    Criterion.MOVEMENT,
    Criterion.WEIGHT_CHANGE,
)

CRITERIA: Mapping[Strategy, tuple[Criterion, ...]] = {
    Strategy.STRUCTURED: (
        *_OF_WEIGHTS,
        Criterion.BN_SCALE,
        Criterion.FPGM,
        Criterion.LAMP,
        *_OF_GRADIENTS,
        Criterion.RECONSTRUCTION,
    ),
    Strategy.NEURON: (
        Criterion.ACTIVATION,
        Criterion.APOZ,
        Criterion.ACTIVATION_VARIANCE,
        Criterion.TAYLOR,
        Criterion.RANDOM,
    ),
    Strategy.LAYER: (Criterion.SIMILARITY, Criterion.LOSS, Criterion.RANDOM),
    Strategy.WEIGHT: (*_OF_WEIGHTS, Criterion.LAMP, Criterion.WANDA, *_OF_GRADIENTS),
}
"""What each strategy can be judged by."""

DEFAULT_CRITERION: Mapping[Strategy, Criterion] = {
    Strategy.STRUCTURED: Criterion.L2,
    Strategy.NEURON: Criterion.ACTIVATION,
    Strategy.LAYER: Criterion.SIMILARITY,
    Strategy.WEIGHT: Criterion.L1,
}

UNIT_STRATEGIES = (Strategy.STRUCTURED, Strategy.NEURON)
"""Strategies that remove whole coupled units; they differ in how these are judged."""

SCHEDULES: Mapping[Strategy, tuple[PruneSchedule, ...]] = {
    Strategy.STRUCTURED: tuple(PruneSchedule),
    Strategy.NEURON: tuple(PruneSchedule),
    Strategy.LAYER: (PruneSchedule.ONE_SHOT, PruneSchedule.ITERATIVE),
    Strategy.WEIGHT: tuple(PruneSchedule),
}
"""A layer is there or not: nothing of it can go bit by bit while the network trains."""

ON_DATA = frozenset(
    {
        *_OF_GRADIENTS,
        Criterion.WANDA,
        Criterion.ACTIVATION,
        Criterion.APOZ,
        Criterion.ACTIVATION_VARIANCE,
        Criterion.RECONSTRUCTION,
        Criterion.SIMILARITY,
        Criterion.LOSS,
    }
)
"""Criteria that look at calibration examples, whatever the strategy."""


WITHOUT_LOSS = frozenset(
    {
        Criterion.WANDA,
        Criterion.ACTIVATION,
        Criterion.APOZ,
        Criterion.ACTIVATION_VARIANCE,
        Criterion.SIMILARITY,
        Criterion.RECONSTRUCTION,
    }
)
"""Criteria that look at what happens inside the network, not at its loss, or not only."""


def needs_data(strategy: Strategy, criterion: Criterion) -> bool:
    """Whether calibration examples are needed.

    The variance of a unit's weights is a fact; that of a single weight is one over training steps.
    """
    trajectory = strategy is Strategy.WEIGHT and criterion is Criterion.VARIANCE
    return criterion in ON_DATA or trajectory


def needs_loss(strategy: Strategy, criterion: Criterion) -> bool:
    """Whether examples need targets."""
    return needs_data(strategy, criterion) and criterion not in WITHOUT_LOSS
