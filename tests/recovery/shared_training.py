"""What several processes train together, and one alone, for `test_processes`.

    torchrun --standalone --nproc-per-node 2 tests/recovery/shared_training.py FOLDER
    ... shared_training.py FOLDER goes-on
    ... shared_training.py FOLDER fails|dies

Every process writes what came out of each case into FOLDER. The second form writes what comes out
of some of them when they go on from each of their epochs. The third lets process 1 fail, or be
killed, in the middle of a step.
"""

import dataclasses
import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_training import SGD, Watcher, captured, cnn, data_for, mlp, random_masks, smallest
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli import crew
from prunecli.choices import Augment, Curve, Penalty
from prunecli.data.contents import Content, Samples
from prunecli.errors import PrunecliError, TrainingError
from prunecli.graph.capture import capture
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.progress import SilentReporter
from prunecli.recovery import Gradual, KeepMasks, SparseTraining, Teacher, TrainResult, finetune
from prunecli.recovery.companion import Companion, Memory
from prunecli.recovery.penalties import Penalised
from prunecli.timing import Timing
from prunecli.tuning import TrainConfig


@dataclasses.dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        count: training examples.
        content: what their inputs hold.
    """

    make: Callable[[], GraphModule]
    config: TrainConfig
    count: int = 45
    companion: Callable[[GraphModule], Companion] | None = None
    distilled: bool = False
    content: Content = None


class Drops(nn.Module):
    """Dropout of three kinds: of values, of channels, and inside a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Dropout1d(0.5)
        self.lstm = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.lstm(self.whole(x.reshape(-1, 2, 3)))[0][:, -1])
        return found


def dropouts() -> GraphModule:
    torch.manual_seed(0)
    return captured(Drops(), 6)


def penalised(network: GraphModule) -> Companion:
    del network
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3))
    example = torch.randn(4, 6)
    found = couple(walk(capture(module.eval(), positional((example,)))))
    return SparseTraining(Penalty.GROUP_LASSO, 0.01, Penalised(found))


def gradual(network: GraphModule) -> Companion:
    timing = Timing(curve=Curve.LINEAR, begin=0.2, end=0.7, every=2, regrow=0.3)
    return Gradual(timing, smallest(network, 0.6))


def masked(network: GraphModule) -> Companion:
    return KeepMasks(random_masks(network))


LATE = dataclasses.replace(SGD, batch_size=7, lr=0.05)

CASES: dict[str, Case] = {
    # 45 = 6 * 7 + 3: parts of 4 and 3 examples, in the end of 2 and 1.
    "batch norm and dropout": Case(cnn, LATE),
    # 43 = 6 * 7 + 1 leaves one out; batches of 2 leave the last process with nothing at times.
    "a process without a part": Case(mlp, dataclasses.replace(SGD, batch_size=3), 43),
    "clipping and L1": Case(mlp, dataclasses.replace(LATE, clip=0.1, l1=0.01)),
    "distillation": Case(cnn, dataclasses.replace(LATE, distill=0.7), distilled=True),
    "features": Case(cnn, dataclasses.replace(LATE, distill=0.0, features=0.5), distilled=True),
    "masks": Case(cnn, LATE, companion=masked),
    "growing masks": Case(mlp, LATE, companion=gradual),
    "penalty": Case(mlp, LATE, companion=penalised),
    "accumulated": Case(cnn, dataclasses.replace(LATE, accumulate=3)),
    "part of an epoch": Case(mlp, dataclasses.replace(LATE, epochs=1.5)),
    "averages and mixtures": Case(cnn, dataclasses.replace(LATE, ema=0.9, mixup=0.4, cutmix=1.0)),
    "changed sounds": Case(
        mlp,
        dataclasses.replace(LATE, augment=Augment.STRONG, mixup=0.4),
        content=Samples(),
        distilled=True,
    ),
    "other dropout": Case(dropouts, LATE),
}


GOING_ON = (
    "batch norm and dropout",
    "growing masks",
    "accumulated",
    "averages and mixtures",
    "changed sounds",
    "other dropout",
)


class Pages:
    """Keeps the memory of every epoch, as a file would; the main process has one."""

    def __init__(self, page: bytes | None = None) -> None:
        self.page = page
        self.written: list[bytes] = []

    def load(self) -> Memory | None:
        if self.page is None:
            return None
        found: Memory = torch.load(io.BytesIO(self.page), weights_only=True)
        return found

    def save(self, memory: Memory) -> None:
        stream = io.BytesIO()
        torch.save(dict(memory), stream)
        self.written.append(stream.getvalue())


def run(case: Case, keeper: Pages | None = None) -> tuple[TrainResult, GraphModule]:
    network = case.make()
    teacher = case.make() if case.distilled else None
    if teacher is not None:
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.mul_(1.5)
    found = finetune(
        network,
        dataclasses.replace(data_for(network, case.count), contents=(case.content,)),
        case.config,
        SilentReporter(),
        teacher=None if teacher is None else Teacher(teacher),
        companion=None if case.companion is None else case.companion(network),
        keeper=keeper,
    )
    return found, network


def outcome(case: Case, keeper: Pages | None = None) -> dict[str, Any]:
    """Losses, scores and weights."""
    found, network = run(case, keeper)
    return {
        "losses": [epoch.train_loss for epoch in found.curve],
        "scores": [found.start, *(epoch.score for epoch in found.curve)],
        "best": found.best_epoch,
        "weights": dict(network.state_dict()),
        "notes": found.notes,
    }


def outcomes_from(case: Case) -> list[dict[str, Any]]:
    """Of a run that nothing interrupts, and of those that go on from each of its epochs."""
    first = Pages() if crew.rank() == 0 else None
    found = [outcome(case, first)]
    for epoch in range(len(found[0]["losses"])):
        found.append(outcome(case, None if first is None else Pages(first.written[epoch])))
    return found


class Stops(Watcher):
    """Ends process 1 in the middle of a step, in which the others wait for it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self._how = how

    def penalty(self) -> Tensor | None:
        if crew.rank() == 1 and len(self.weights) == 2:
            if self._how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            raise TrainingError("the test: enough is needed, got enough", "lower --lr")
        return None


def main(folder: Path) -> None:
    with crew.joined(cpu=True):
        for name, case in CASES.items():
            torch.save(outcome(case), folder / f"{name}-{crew.rank()}.pt")


def go_on(folder: Path) -> None:
    with crew.joined(cpu=True):
        for name in GOING_ON:
            torch.save(outcomes_from(CASES[name]), folder / f"{name}-{crew.rank()}.pt")


def stop(folder: Path, how: str) -> None:
    """Write down how this process ended."""
    try:
        with crew.joined(cpu=True):
            outcome(Case(cnn, LATE, companion=lambda network: Stops(how)))
    except PrunecliError as error:
        said = getattr(error, "said", None)
        text = json.dumps([type(error).__name__, error.message, error.exit_code, said])
        (folder / os.environ["RANK"]).write_text(text)


if __name__ == "__main__":
    if sys.argv[2:] == ["goes-on"]:
        go_on(Path(sys.argv[1]))
    elif len(sys.argv) > 2:
        stop(Path(sys.argv[1]), sys.argv[2])
    else:
        main(Path(sys.argv[1]))
