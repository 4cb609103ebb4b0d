"""Every strategy, criterion and schedule on one network, with the same training in all.

    python benchmarks/strategies.py --json strategies.json            all rows
    python benchmarks/strategies.py --filter weight --json s.json     some of them
    python benchmarks/strategies.py --json strategies.json --resume   go on where that stopped

ResNet-20 on CIFAR-10, 2 epochs in all (in bfloat16), the same seed. Each row is one
`prunecli prune` in a process of its own; its figures are read from the report that this writes, so
they were measured on the exported file. Where masks were used, the zeros in the file are counted
again here, from the values that onnxruntime computes with. Exit code 1 if a run failed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prunecli.choices import CRITERIA, Strategy
from prunecli.export.onnx_file import nonzero_weights

SHARED = Path(__file__).parents[2] / "shared"
EPOCHS = "2"
HALF = ("--target-macs", "50%")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        sparsity: share of all weights in the file that are zero.
        before: accuracy before any fine-tuning, where there was such a network.
    """

    name: str
    flags: tuple[str, ...]
    accuracy: float
    original: float
    before: float | None
    size: float
    compressed: float
    macs: float
    params: float
    sparsity: float
    speedup: tuple[float, float, float]
    seconds: float


def runs() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names and flags."""
    for sparsity in ("50%", "80%", "90%"):
        flags = ("--strategy", "weight", "--weight-sparsity", sparsity)
        yield f"weight {sparsity}", flags
    yield "weight 2:4", ("--strategy", "weight", "--pattern", "2:4")
    yield "structured l2, labels alone", ("--distill", "0", *HALF)
    yield "weight 80%, labels alone", ("--strategy", "weight", "--distill", "0")
    for strategy in (Strategy.STRUCTURED, Strategy.NEURON):
        for criterion in CRITERIA[strategy]:
            flags = ("--strategy", strategy.value, "--criterion", criterion.value, *HALF)
            yield f"{strategy} {criterion}", flags
    for criterion in CRITERIA[Strategy.LAYER]:
        flags = ("--strategy", "layer", "--layers-to-drop", "2", "--criterion", criterion.value)
        yield f"layer 2 {criterion}", flags
    yield "structured iterative", ("--schedule", "iterative", "--rounds", "3", *HALF)
    yield "structured gradual", ("--schedule", "gradual", *HALF)
    weight = ("--strategy", "weight", "--weight-sparsity")
    yield "weight 90% iterative", (*weight, "90%", "--schedule", "iterative", "--rounds", "3")
    yield "weight 90% gradual", (*weight, "90%", "--schedule", "gradual")
    yield (
        "weight 90% gradual, regrown",
        (*weight, "90%", "--schedule", "gradual", "--regrow", "30%"),
    )
    yield "weight 50% DSD", (*weight, "50%", "--dense-epochs", "1")
    yield (
        "layer, structured, weight",
        ("--strategy", "layer,structured,weight", "--layers-to-drop", "1", *HALF),
    )
    yield "structured local", ("--scope", "local", *HALF)
    yield "structured isomorphic", ("--scope", "isomorphic", *HALF)
    yield "weight 4x1 80%", ("--strategy", "weight", "--pattern", "4x1")
    for criterion in CRITERIA[Strategy.WEIGHT]:
        yield (
            f"weight 80% {criterion}",
            ("--strategy", "weight", "--criterion", criterion.value),
        )


def main() -> int:
    """Run what was asked for."""
    options = _options()
    known = _known(options.json) if options.resume else {}
    chosen = [(name, flags) for name, flags in runs() if options.filter in name]
    failed = False
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = {
            name: pool.submit(_run, name, flags, options)
            for name, flags in chosen
            if name not in known
        }
        for name, _ in chosen:
            row = known.get(name) or waiting[name].result()
            if row is None:
                failed = True
                continue
            known[name] = row
            print(line(row), flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps([asdict(item) for item in known.values()]))
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare strategies on ResNet-20.")
    parser.add_argument("--filter", metavar="X", default="", help="names that hold this text")
    parser.add_argument("--json", metavar="FILE", type=Path, help="keep rows here")
    parser.add_argument("--resume", action="store_true", help="leave out rows that are there")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--shared", type=Path, default=SHARED, help="data, checkpoints, models")
    return parser.parse_args()


def _known(path: Path | None) -> dict[str, Row]:
    if path is None or not path.exists():
        return {}
    rows = json.loads(path.read_text())
    return {
        row["name"]: Row(**{**row, "flags": tuple(row["flags"]), "speedup": tuple(row["speedup"])})
        for row in rows
    }


def _run(name: str, flags: tuple[str, ...], options: argparse.Namespace) -> Row | None:
    shared = options.shared
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "out.onnx"
        command = [
            *(sys.executable, "-m", "prunecli", "prune"),
            str(shared / "checkpoints" / "resnet20_cifar10.pth"),
            *("--model", f"{shared / 'models' / 'cifar_resnet.py'}:resnet20"),
            *("--data", str(shared / "data" / "cifar10")),
            *("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
            *("--epochs", EPOCHS, "--precision", "bf16", "--seed", "0"),
            *("-q", "--json", "-o", str(onnx)),
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name}: exit {done.returncode}: {done.stderr.strip()[-500:]}", flush=True)
            return None
        return _row(name, flags, json.loads(done.stdout), onnx)


def _row(name: str, flags: tuple[str, ...], report: Mapping[str, Any], onnx: Path) -> Row:
    rows = {row["name"]: row for row in report["rows"]}
    original, final = rows["original"], report["rows"][-1]
    before = rows.get("pruned")
    left, total = nonzero_weights(onnx)
    masked = final["nonzero"]
    if masked is not None and masked != left:
        raise AssertionError(f"{name}: the report counts {masked} non-zero weights, got {left}")
    speedup = final["speedup"]
    return Row(
        name,
        flags,
        final["score"],
        original["score"],
        None if before is None else before["score"],
        final["size_bytes"] / original["size_bytes"],
        final["compressed_bytes"] / original["compressed_bytes"],
        final["macs"] / original["macs"],
        final["params"] / original["params"],
        1.0 - left / total,
        (speedup["p50"], speedup["low"], speedup["high"]),
        sum(stage["seconds"] for stage in report["stages"]),
    )


def line(row: Row) -> str:
    """A row of a Markdown table."""
    before = "-" if row.before is None else f"{row.before:.2%}"
    middle, low, high = row.speedup
    points = 100 * (row.accuracy - row.original)
    return (
        f"| {row.name} | {row.accuracy:.2%} | {points:+.2f} | {before} "
        f"| {row.size:.1%} | {row.compressed:.1%} | {row.macs:.1%} | {row.params:.1%} "
        f"| {row.sparsity:.1%} | {middle:.2f}x ({low:.2f}-{high:.2f}) | {row.seconds:.0f} s |"
    )


if __name__ == "__main__":
    sys.exit(main())
