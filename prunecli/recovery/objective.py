"""What fine-tuning minimises: the task's loss, and the distance to what the original says.

Stage: recovery. In: a batch, and what the network made of it. Out: scalars. Never changes a
network; of the original, outputs are read, and features where that was asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.fx import GraphModule

from prunecli.data import DataSet
from prunecli.errors import ConfigError
from prunecli.graph.capture import fixed_batch
from prunecli.recovery.features import Features, Left, features_of
from prunecli.recovery.placement import Placement, placed
from prunecli.recovery.precision import forward_in
from prunecli.recovery.scoring import forward
from prunecli.tasks import Task, Tensors
from prunecli.tuning import TrainConfig

Teach = Callable[[Tensors], Tensors]
"""Inputs to the original's outputs."""

FEATURE_EXAMPLES = 64
"""Training examples on which the variance of the original's features is measured."""


@dataclass(frozen=True)
class Losses:
    """Of a batch.

    Attributes:
        wanted: what is minimised, but for `features`; like `own` a mean over what the task counts.
        own: the loss on the targets alone (without targets, the distance).
        features: the weighted distance between features, a mean over examples.
    """

    wanted: Tensor
    own: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """`(1 - share) * loss on the targets + share * distance to the original`, and
    `weight * distance between features`.

    Attributes:
        share: in 0-1.
        temperature: of the softmax in the distance, see `Task.distance`.
        teach: the original; `None` where nothing is learnt from it.
        smoothing: share of each label that is spread over all classes.
        weight, features: of the distance inside.
    """

    task: Task
    share: float
    temperature: float
    teach: Teach | None
    smoothing: float = 0.0
    weight: float = 0.0
    features: Features | None = None

    def __call__(
        self,
        inputs: Tensors,
        outputs: Tensors,
        targets: Tensors,
        others: Tensors | None = None,
        own: float = 1.0,
    ) -> Losses:
        """The losses of one batch.

        Args:
            inputs: as the network saw them, in the pass before.
            targets: of the examples as they were before they were mixed.
            others, own: targets of what they were mixed with, and the share that is theirs.

        Raises:
            ModelError: the outputs do not fit the task.
        """
        said = None if self.teach is None else self.teach(inputs)
        apart = None if self.features is None else self.weight * self.features.distance()
        if not self.task.labelled:
            assert said is not None
            far = self.task.distance(outputs, said, targets, self.temperature)
            return Losses(far, far, apart)
        loss = self._loss(outputs, targets, others, own)
        if said is None or self.share == 0.0:
            return Losses(loss, loss, apart)
        far = self.task.distance(outputs, said, targets, self.temperature)
        return Losses((1.0 - self.share) * loss + self.share * far, loss, apart)

    def _loss(
        self, outputs: Tensors, targets: Tensors, others: Tensors | None, share: float
    ) -> Tensor:
        """On the targets; of mixed examples the mean over both, which for classes is the loss on
        mixed labels."""
        own = self.task.loss(outputs, targets, self.smoothing)
        if others is None:
            return own
        return share * own + (1.0 - share) * self.task.loss(outputs, others, self.smoothing)

    @property
    def words(self) -> str | None:
        """What the report says."""
        if self.teach is None:
            return None
        inside = ""
        if self.features is not None:
            number = len(self.features)
            what = f"{number} feature{'s' if number > 1 else ''}"
            inside = f", and {self.weight:g} times that of {what} inside"
        if not self.task.labelled:
            return (
                f"the loss is the distance to the original's outputs{inside}; no labels were used"
            )
        far = f"the loss is {self.share:.0%} distance to the original's outputs{inside}"
        return f"{far} (distillation)"

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Where features are compared, the networks must run inside of this block."""
        with nullcontext() if self.features is None else self.features.watched():
            yield

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """Inside a block of `watched`: others may look at the network in this one."""
        with nullcontext() if self.features is None else self.features.unwatched():
            yield


@dataclass(frozen=True)
class Teacher:
    """The original, to learn from.

    Attributes:
        network: in evaluation mode; the pruned network shares no memory with it.
        left: which of its indices the pruned network has.
    """

    network: GraphModule
    left: Left = field(default_factory=dict)


@contextmanager
def objective_for(
    network: GraphModule,
    data: DataSet,
    config: TrainConfig,
    teacher: Teacher | None,
    placement: Placement,
) -> Iterator[Objective]:
    """The objective; inside the block the original is on the device.

    Args:
        network: what is trained, placed.
        teacher: without it nothing is distilled.

    Raises:
        ConfigError: distillation was asked for and there is no original to learn from, or nothing
            inside can be compared; labels that are numbers, or none, were to be smoothed.
    """
    task = data.task
    check_objective(task, config)
    share = task.share if config.distill is None else config.distill
    if teacher is None and (config.distill or config.features or not task.labelled):
        flag = "--distill" if config.distill else "--distill-features"
        flag = flag if task.labelled else f"--task {task.name}"
        raise ConfigError(f"{flag}: needs the original network, got none", f"leave out {flag}")
    plain = Objective(task, share, config.temperature, None, config.label_smoothing)
    if teacher is None or not (share or config.features):
        yield replace(plain, share=0.0)
        return
    original = teacher.network
    with placed(original, placement.device) as place:

        def teach(inputs: Tensors) -> Tensors:
            with torch.no_grad():
                return forward_in(config.precision, original, inputs, place)

        plain = replace(plain, teach=teach)
        if not config.features:
            yield plain
            return

        def run() -> None:
            inputs = _examples(network, data, placement.device)
            forward(network, inputs, placement)
            forward(original, inputs, place)

        found = features_of(original, network, teacher.left, run)
        if found is None:
            raise ConfigError(
                "--distill-features: a layer inside must read the same in both networks, got none",
                "leave it out",
            )
        yield replace(plain, weight=config.features, features=found)


def _examples(network: GraphModule, data: DataSet, device: torch.device) -> Tensors:
    """The first training examples, as inputs."""
    number = fixed_batch(network) or min(FEATURE_EXAMPLES, len(data.train))
    places = torch.arange(number) % len(data.train)
    stored = tuple(item[places] for item in data.train.inputs)
    return tuple(item.to(device) for item in data.prepare(stored))


def check_objective(task: Task, config: TrainConfig) -> None:
    """Refuse what would have no effect on this task.

    Raises:
        ConfigError: such a wish.
    """
    if config.label_smoothing and not task.smooths:
        raise ConfigError(
            f"--label-smoothing: is for classes, got data for {task.name}", "leave it out"
        )
    if config.distill is not None and not task.labelled:
        raise ConfigError(
            f"--distill: has no effect with --task {task.name}, whose whole loss is the distance",
            "leave it out",
        )
