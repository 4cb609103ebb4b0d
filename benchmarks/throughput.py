"""How fast the captured graph is fine-tuned, next to a hand-written loop over the eager model.

    python benchmarks/throughput.py                 both networks (about three minutes)
    python benchmarks/throughput.py --net mnist     one of them

Ours is `prunecli.recovery.finetune`. The other loop is plain PyTorch as one would write it with
care: examples in memory as tensors, batches by index, augmentation of whole batches (the same
crops and flips), the same optimizer, schedule and batch, once in the default memory layout and once
channels last. Both load their data; neither scores anything in the time that is measured.

Blocks of steps alternate (A B C A B C ...), the first steps of each are left out. Ratios are of
processor time, which other work on the machine disturbs least, and of wall time; middle of all
rounds, and the smallest and largest. Peak memory is that of processes of their own, which get
the examples ready and do nothing else; capturing the network belongs to ours.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from kornia.augmentation import RandomCrop, RandomHorizontalFlip
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import zoo_memory
from prunecli.choices import DeviceName
from prunecli.config import DataConfig
from prunecli.data import DataSet, Split, open_data
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional
from prunecli.progress import SilentReporter
from prunecli.recovery import finetune
from prunecli.recovery.companion import Setting, State
from prunecli.recovery.placement import placed
from prunecli.tuning import TrainConfig

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
WARM_UP = 3
PEAK_LR, WEIGHT_DECAY, MOMENTUM = 0.01, 5e-4, 0.9


@dataclass(frozen=True)
class Setup:
    """What is trained.

    Attributes:
        steps: of each block, `WARM_UP` of which are left out.
        examples: read from the data set.
    """

    source: Path
    factory: str
    data: Path
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch: int
    steps: int
    examples: int

    def module(self) -> nn.Module:
        """The eager network, with random weights."""
        spec = importlib.util.spec_from_file_location("network", self.source)
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
        torch.manual_seed(0)
        made = getattr(found, self.factory)()
        assert isinstance(made, nn.Module)
        return made

    def read(self) -> DataSet:
        """The data; what chooses an epoch is cut to next to nothing."""
        config = DataConfig(self.data, self.mean, self.std, max_samples=self.examples)
        found = open_data(config, sample_shape=None, reporter=SilentReporter())
        few = Split(
            "choose",
            tuple(item[:2].clone() for item in found.choose.inputs),
            tuple(item[:2].clone() for item in found.choose.targets),
        )
        return replace(found, choose=few)


SETUPS = {
    "resnet20": Setup(
        SHARED / "models" / "cifar_resnet.py",
        "resnet20",
        SHARED / "data" / "cifar10",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        batch=128,
        steps=13,
        examples=2000,
    ),
    "mnist": Setup(
        ROOT / "samples" / "mnist_cnn.py",
        "MnistCNN",
        ROOT / "samples" / "mnist",
        (0.1307,),
        (0.3081,),
        batch=32,
        steps=33,
        examples=4000,
    ),
}


@dataclass
class Clock:
    """Times steps; also a companion of training, which is how ours is timed."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def tick(self) -> None:
        """A step has ended."""
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())

    def per_step(self) -> tuple[float, float]:
        """Seconds of wall and of processor time, without the warm-up."""
        count = len(self.wall) - WARM_UP
        wall, processor = (item[-1] - item[WARM_UP - 1] for item in (self.wall, self.processor))
        return wall / count, processor / count

    def begin(self, setting: Setting) -> None:
        """Nothing."""

    def penalty(self) -> Tensor | None:
        """None."""
        return None

    def before_step(self, step: int, steps: int) -> None:
        """Nothing."""

    def after_step(self, step: int, steps: int) -> None:
        """The weights have been updated."""
        self.tick()

    def counts(self, done: int, steps: int) -> bool:
        """Any."""
        return True

    def snapshot(self) -> State:
        """Nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""


Block = Callable[[], Clock]


def ours(setup: Setup, data: DataSet) -> Block:
    """A block of steps of `finetune`."""
    example = data.prepare([item[:2] for item in data.train.inputs])
    network = capture(setup.module().eval(), positional(example)).network
    assert isinstance(network, GraphModule)
    config = TrainConfig(
        lr=PEAK_LR, batch_size=setup.batch, distill=0.0, device=DeviceName.CPU, momentum=MOMENTUM
    )
    epochs = setup.steps / -(-len(data.train) // setup.batch)

    def block() -> Clock:
        clock = Clock()
        finetune(network, data, config, SilentReporter(), companion=clock, epochs=epochs)
        return clock

    return block


def by_hand(setup: Setup, data: DataSet, layout: torch.memory_format) -> Block:
    """The same steps, written out."""
    module = setup.module().to(memory_format=layout)
    (images,), (labels,) = data.train.inputs, data.train.targets
    channels, size = images.shape[1], images.shape[2]
    mean, std = (torch.tensor(item).reshape(1, -1, 1, 1) for item in (setup.mean, setup.std))
    augment = nn.Sequential()
    if channels == 3:
        augment = nn.Sequential(
            RandomCrop((size, size), padding=size // 8), RandomHorizontalFlip(p=0.5)
        )

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(images)).split(setup.batch):
            chosen = images[rows].float()
            if channels == 3:
                with torch.no_grad():
                    chosen = augment(chosen)
            chosen = chosen.div_(255.0).sub_(mean).div_(std)
            yield chosen.contiguous(memory_format=layout), labels[rows]

    def block() -> Clock:
        clock = Clock()
        optimizer = torch.optim.SGD(
            module.parameters(), PEAK_LR, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LR, total_steps=setup.steps, pct_start=0.1
        )
        module.train()
        total = 0.0
        for _, (inputs, targets) in zip(range(setup.steps), batches(), strict=False):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(inputs), targets)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(targets)
            clock.tick()
        return clock

    return block


KINDS: dict[str, Callable[[Setup, DataSet], Block]] = {
    "prunecli": ours,
    "by hand": lambda setup, data: by_hand(setup, data, torch.contiguous_format),
    "by hand, channels last": lambda setup, data: by_hand(setup, data, torch.channels_last),
}


def compare(name: str, setup: Setup, rounds: int) -> None:
    """Print the rows of one network."""
    data = setup.read()
    blocks = {kind: make(setup, data) for kind, make in KINDS.items()}
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind, block in blocks.items():
            found = block().per_step()
            if number:  # the first round only warms up
                times[kind].append(found)
    print(f"{name}: batch {setup.batch}, {rounds} rounds of {setup.steps - WARM_UP} steps each,")
    print(f"channels last in prunecli: {'yes' if runs_channels_last(setup, data) else 'no'}")
    for kind, found in times.items():
        line = f"{kind:24}{setup.batch / statistics.median(c for _, c in found):8.0f} images/cpu-s"
        if kind != "prunecli":
            for place, word in ((1, "processor"), (0, "wall")):
                pairs = zip(found, times["prunecli"], strict=True)
                ratios = [theirs[place] / own[place] for theirs, own in pairs]
                line += (
                    f"   prunecli {statistics.median(ratios):.2f}x "
                    f"({min(ratios):.2f}-{max(ratios):.2f}) by {word} time"
                )
        print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "data.npz"
        np.savez(small, x=data.train.inputs[0].numpy(), y=data.train.targets[0].numpy())
        peaks = {kind: peak(name, kind, small) for kind in KINDS}
    for kind, memory in peaks.items():
        line = f"{kind:24}{memory / 2**20:8.0f} MiB at most"
        if kind != "prunecli":
            line += f"   prunecli {peaks['prunecli'] / memory:.2f}x"
        print(line)


def runs_channels_last(setup: Setup, data: DataSet) -> bool:
    """The layout that training chooses."""
    example = data.prepare([item[:2] for item in data.train.inputs])
    network = capture(setup.module().eval(), positional(example)).network
    with placed(network, torch.device("cpu")) as placement:
        return placement.channels_last


def peak(name: str, kind: str, data: Path) -> int:
    """Bytes that a process needed at most that only trains a block.

    Args:
        data: what was read before, as arrays: reading files of images takes more memory than
            training these small networks.
    """
    done = subprocess.run(
        [sys.executable, __file__, "--net", name, "--only", kind, "--examples", str(data)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    """Compare, or train one block and say how much memory it took."""
    parser = argparse.ArgumentParser(description="Throughput of fine-tuning.")
    parser.add_argument("--net", choices=SETUPS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--examples", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        setup = replace(SETUPS[options.net], data=options.examples)
        KINDS[options.only](setup, setup.read())()
        print(zoo_memory.peak())
        return
    for name, setup in SETUPS.items():
        if options.net not in (None, name):
            continue
        missing = next((path for path in (setup.source, setup.data) if not path.exists()), None)
        if missing is None:
            compare(name, setup, options.rounds)
        else:
            print(f"{name}: left out, it needs {missing}")


if __name__ == "__main__":
    main()
