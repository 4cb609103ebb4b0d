"""What survives a cut: untrained, and after one and two epochs, beside Torch-Pruning.

    pip install torch-pruning==1.6.1
    python benchmarks/recovery.py --json recovery.json            all rows
    python benchmarks/recovery.py --filter resnet20 --json r.json  some of them
    python benchmarks/recovery.py --json recovery.json --resume    go on where that stopped

ResNet-20 and ResNet-56 on CIFAR-10 at 70%, 50% and 30% of their MACs. Untrained: as cut (raw),
with the statistics of batch norms measured anew (bn), with reconstruction; the same 1,024
unlabelled images for both tools. Trained at 50%: the same examples in the same batches of 32, in
bfloat16, at the rate given here for each tool. Rows of prunecli are runs of its command line,
judged on the exported file; those of the peer are judged in PyTorch. Accuracy on the 5,000
validation images. Exit code 1 if a run failed or a goal was missed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import torch

from prunecli.choices import Precision
from prunecli.config import DataConfig, ModelConfig, RunConfig
from prunecli.pipeline.ledger import Ledger
from prunecli.pipeline.prepare import Prepared, prepare
from prunecli.pipeline.run import first_report
from prunecli.progress import SilentReporter
from prunecli.recovery import finetune, reestimate, score
from prunecli.tuning import TrainConfig
from prunecli.wishes import RemovalFlags, read_removal
from recovery_peer import CRITERIA, cut, drawn

SHARED = Path(__file__).parents[2] / "shared"
NETWORKS, SHARES = ("resnet20", "resnet56"), (70, 50, 30)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PEER_LR = 0.01
"""For labels alone in batches of 32: the best of 0.005, 0.01 and 0.02 on ResNet-20, one epoch."""

UNTRAINED = {"raw": "none", "bn": "bn", "reconstruction": "reconstruct"}


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes:
        accuracy: of the cut network, 0-1.
        macs, params: shares of the original's.
        seconds: of reconstruction, or of the whole run for others.
    """

    name: str
    accuracy: float
    macs: float
    params: float
    seconds: float


Measure = Callable[[], Iterator[Row]]


def jobs(shared: Path) -> Iterator[tuple[str, Measure]]:
    """Names of what is measured, and how."""
    for network in NETWORKS:
        for share in SHARES:
            for what, recover in UNTRAINED.items():
                name = f"{network} {share}% prunecli {what}"
                flags = ("--recover", recover, "--epochs", "0")
                yield name, partial(_ours, name, network, share, flags, shared)
            for criterion in CRITERIA:
                name = f"{network} {share}% Torch-Pruning {criterion}"
                yield name, partial(_peer, name, network, share, criterion, shared)
    for network in NETWORKS:
        for epochs in (1, 2):
            name = f"{network} 50% prunecli {epochs} epochs"
            flags = ("--epochs", str(epochs))
            yield name, partial(_ours, name, network, 50, flags, shared)
            name = f"{network} 50% Torch-Pruning group L2 {epochs} epochs"
            yield name, partial(_trained_peer, name, network, epochs, shared)


def _ours(
    name: str, network: str, share: int, flags: tuple[str, ...], shared: Path
) -> Iterator[Row]:
    model, data = _configs(network, shared)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "prunecli", "prune", str(model.checkpoint)),
            *("--model", str(model.factory), "--data", str(data.path)),
            *("--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))),
            *("--target-macs", f"{share}%", "--precision", "bf16", "--seed", "0"),
            *("--latency-seconds", "0.2", "-q", "--json", "-o", f"{folder}/out.onnx"),
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    report = json.loads(done.stdout)
    original, final = report["rows"][0], report["rows"][-1]
    seconds = {stage["name"]: stage["seconds"] for stage in report["stages"]}
    yield Row(
        name,
        final["score"],
        final["macs"] / original["macs"],
        final["params"] / original["params"],
        seconds.get("reconstruct", 0.0) if "0" in flags else sum(seconds.values()),
    )


def _peer(name: str, network: str, share: int, criterion: str, shared: Path) -> Iterator[Row]:
    """As it was cut, and with batch-norm statistics measured anew."""
    start = time.monotonic()
    prepared = _prepared(network, shared)
    data = prepared.data
    assert data is not None
    made = cut(_configs(network, shared)[0], data, share / 100, criterion)
    for what in ("raw", "bn"):
        if what == "bn":
            reestimate(made.captured.network, drawn(data, 1024)[0], SilentReporter())
        found = score(made.captured.network, data.validation, data, 500).value
        seconds = time.monotonic() - start
        yield Row(f"{name} {what}", found, made.macs, made.params, seconds)


def _trained_peer(name: str, network: str, epochs: int, shared: Path) -> Iterator[Row]:
    """On labels alone: it has no distillation."""
    start = time.monotonic()
    data = _prepared(network, shared).data
    assert data is not None
    made = cut(_configs(network, shared)[0], data, 0.5, "group L2")
    config = TrainConfig(epochs, PEER_LR, precision=Precision.BF16, distill=0.0)
    finetune(made.captured.network, data, config, SilentReporter())
    found = score(made.captured.network, data.validation, data, 500).value
    yield Row(name, found, made.macs, made.params, time.monotonic() - start)


def _configs(network: str, shared: Path) -> tuple[ModelConfig, DataConfig]:
    checkpoint = shared / "checkpoints" / f"{network}_cifar10.pth"
    factory = f"{shared / 'models' / 'cifar_resnet.py'}:{network}"
    return ModelConfig(checkpoint, factory), DataConfig(shared / "data" / "cifar10", MEAN, STD)


@cache
def _prepared(network: str, shared: Path) -> Prepared:
    model, data = _configs(network, shared)
    config = RunConfig(model, read_removal(RemovalFlags(target_macs="50%")), data=data)
    return prepare(config, Ledger(first_report(config), None), SilentReporter())


def goals(rows: dict[str, Row]) -> Iterator[tuple[str, bool]]:
    """What is asked of the rows that are there."""

    def accuracy(name: str) -> float | None:
        return rows[name].accuracy if name in rows else None

    def peers(network: str, ending: str) -> list[float]:
        start = f"{network} 50% Torch-Pruning"
        names = [name for name in rows if name.startswith(start) and name.endswith(ending)]
        return [rows[name].accuracy for name in names]

    for name, least in (
        ("resnet20 50% prunecli reconstruction", 0.81),
        ("resnet56 50% prunecli reconstruction", 0.8914 - 0.05),
        ("resnet20 50% prunecli 1 epochs", 0.843),
        ("resnet20 50% prunecli 2 epochs", 0.858),
    ):
        if (found := accuracy(name)) is not None:
            yield f"{name}: {found:.2%}, at least {least:.2%}", found >= least
    for epochs in ("1 epochs", "2 epochs"):
        found, others = accuracy(f"resnet56 50% prunecli {epochs}"), peers("resnet56", epochs)
        if found is not None and others:
            best = max(others)
            text = f"resnet56 50% {epochs}: {found:.2%}, the peer {best:.2%}, a point more"
            yield text, found >= best + 0.01
    if (row := rows.get("resnet20 50% prunecli reconstruction")) is not None:
        text = f"reconstruction of resnet20: {row.seconds:.0f} s, under 60"
        yield text, row.seconds < 60


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description="Recovery beside Torch-Pruning.")
    parser.add_argument("--filter", metavar="X", default="", help="names that hold this text")
    parser.add_argument("--json", metavar="FILE", type=Path, help="keep rows here")
    parser.add_argument("--resume", action="store_true", help="leave out rows that are there")
    parser.add_argument("--shared", type=Path, default=SHARED, help="data, checkpoints, models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, Row] = {}
    if options.resume and options.json is not None and options.json.exists():
        rows = {row["name"]: Row(**row) for row in json.loads(options.json.read_text())}
    failed = False
    for name, measure in jobs(options.shared):
        if options.filter not in name or any(known.startswith(name) for known in rows):
            continue
        try:
            for row in measure():
                rows[row.name] = row
                print(line(row), flush=True)
        except RuntimeError as error:
            print(f"{name}: {error}", flush=True)
            failed = True
        if options.json is not None:
            options.json.write_text(json.dumps([asdict(item) for item in rows.values()]))
    for text, good in goals(rows):
        print(f"{'ok' if good else 'MISSED'}: {text}")
        failed |= not good
    return 1 if failed else 0


def line(row: Row) -> str:
    """A row of a Markdown table."""
    return (
        f"| {row.name} | {row.accuracy:.2%} | {row.macs:.1%} | {row.params:.1%} "
        f"| {row.seconds:.0f} s |"
    )


if __name__ == "__main__":
    sys.exit(main())
