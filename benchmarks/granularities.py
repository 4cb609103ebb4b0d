"""Single weights, neurons and whole structures, side by side on a CNN, an MLP and an LSTM.

    python benchmarks/granularities.py

On the sample data. The MLP and the LSTM are trained first (about a minute); each row is then one
`prunecli prune`, whose report says what was measured on the exported file. Exit code 1 if a row
misses what is asked of it: weight pruning leaves at most a fifth of the file, neuron pruning less
than a third and is at least 1.4 times as fast, structured pruning leaves an LSTM a quarter and is
at least 1.5 times as fast; each within a point of the original's accuracy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from granularity_nets import DigitLSTM, DigitMLP
from prunecli.config import DataConfig
from prunecli.data import batches, open_data
from prunecli.progress import SilentReporter

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent / "samples"
MEAN, STD = 0.1307, 0.3081
MOST_LOST = 0.01


@dataclass(frozen=True)
class Goal:
    """What is asked of a granularity.

    Attributes:
        size: largest share of the original's file.
        speed: least speed-up, the median of paired rounds.
    """

    flags: tuple[str, ...]
    size: float
    speed: float | None


WEIGHT = Goal(("--strategy", "weight", "--weight-sparsity", "86%"), 0.2, None)
NEURON = Goal(("--strategy", "neuron", "--target-params", "30%"), 1 / 3, 1.4)
STRUCTURE = Goal(("--strategy", "structured", "--target-params", "22%"), 0.25, 1.5)
GOALS = {"weight": WEIGHT, "neuron": NEURON, "structured": STRUCTURE}


def main() -> int:
    """Train, prune, compare."""
    parser = argparse.ArgumentParser(description="Three granularities on three networks.")
    parser.add_argument("--epochs", default="8", help="of fine-tuning")
    parser.add_argument("--filter", default="", help="networks whose name holds this")
    options = parser.parse_args()
    missed = False
    print("| network | strategy | accuracy | points | file | parameters | MACs | speed-up | |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, checkpoint, model in networks(Path(folder), options.filter):
            for kind, goal in GOALS.items():
                report = prune(checkpoint, model, goal, options.epochs, Path(folder))
                faults = list(judge(report, goal))
                print(line(name, kind, report, faults), flush=True)
                missed = missed or bool(faults)
    return 1 if missed else 0


def networks(folder: Path, text: str) -> list[tuple[str, Path, str]]:
    """Names, checkpoints and factories of those whose name holds `text`."""
    made = [("CNN", SAMPLES / "mnist_cnn.safetensors", f"{SAMPLES / 'mnist_cnn.py'}:MnistCNN")]
    for name, network in (("MLP", DigitMLP), ("LSTM", DigitLSTM)):
        if text not in name:
            continue
        torch.manual_seed(0)
        path = folder / f"{name}.pt"
        torch.save(trained(network()).state_dict(), path)
        made.append((name, path, f"{HERE / 'granularity_nets.py'}:{network.__name__}"))
    return [item for item in made if text in item[0]]


def trained(network: nn.Module, epochs: int = 12) -> nn.Module:
    """A network that has learnt the sample data."""
    config = DataConfig(SAMPLES / "mnist", (MEAN,), (STD,))
    data = open_data(config, sample_shape=(1, 28, 28), reporter=SilentReporter())
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    steps = epochs * -(-len(data.train) // 64)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        places = torch.randperm(len(data.train), generator=order)
        for (inputs,), (targets,) in batches(data.train, data.prepare, 64, order=places):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
            rates.step()
    return network.eval()


def prune(checkpoint: Path, model: str, goal: Goal, epochs: str, folder: Path) -> Mapping[str, Any]:
    """One run; its report."""
    command = [
        *(sys.executable, "-m", "prunecli", "prune", str(checkpoint), "--model", model),
        *("--data", str(SAMPLES / "mnist"), "--mean", str(MEAN), "--std", str(STD)),
        *(
            "--optimizer",
            "adamw",
            "--epochs",
            epochs,
            "--seed",
            "0",
            "-q",
            "--json",
            "-o",
            str(folder / "out.onnx"),
        ),
        *goal.flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    report: Mapping[str, Any] = json.loads(done.stdout)
    return report


def judge(report: Mapping[str, Any], goal: Goal) -> list[str]:
    """What is missed."""
    first, last = report["rows"][0], report["rows"][-1]
    faults = []
    if last["size_bytes"] > goal.size * first["size_bytes"]:
        faults.append("file too large")
    if goal.speed is not None and last["speedup"]["p50"] < goal.speed:
        faults.append("too slow")
    if first["score"] - last["score"] > MOST_LOST:
        faults.append("accuracy lost")
    return faults


def line(name: str, kind: str, report: Mapping[str, Any], faults: list[str]) -> str:
    """A row of a Markdown table."""
    first, last = report["rows"][0], report["rows"][-1]
    size, params, macs = (last[key] / first[key] for key in ("size_bytes", "params", "macs"))
    speed = last["speedup"]
    points = 100 * (last["score"] - first["score"])
    return (
        f"| {name} | {kind} | {last['score']:.2%} | {points:+.2f} | {size:.1%} | {params:.1%} "
        f"| {macs:.1%} | {speed['p50']:.2f}x ({speed['low']:.2f}-{speed['high']:.2f}) "
        f"| {', '.join(faults) or 'ok'} |"
    )


if __name__ == "__main__":
    sys.exit(main())
