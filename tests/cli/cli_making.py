"""A small network, its data, and the command line, for the tests of the whole program."""

import contextlib
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from prunecli.cli import main

ROOT = Path(__file__).parents[2]
CLASSES, SIZE, EACH = 3, 8, 40

NET_SOURCE = """
from torch import Tensor, nn


def net(classes: int = 3, width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


class Fixed(nn.Sequential):
    rows: int

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(self.rows, 3)


def fixed(rows: int) -> nn.Module:
    network = Fixed(*net())
    network.rows = rows
    return network


def broken() -> nn.Module:
    raise KeyError("no such size")


def chatty() -> nn.Module:
    print("building the network")
    return net()
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Bench:
    """Everything that a run needs.

    Attributes:
        net: `FILE.py:net`.
        weights: state dict of a network that has learnt `data`.
        program: the same network, exported.
        data: `.npz` of uint8 images that tell their class by their colour, to learn and to judge.
    """

    folder: Path
    net: str
    weights: Path
    program: Path
    data: Path

    @property
    def usual(self) -> list[str]:
        """Arguments of a good run, without its output."""
        return [str(self.weights), "--model", self.net, "--data", str(self.data), *QUICK]


@dataclass(frozen=True)
class Good:
    """A run that went well.

    Attributes:
        onnx: its result; the other files stand beside it.
    """

    ended: Ended
    onnx: Path

    def beside(self, suffix: str) -> Path:
        return self.onnx.with_suffix(suffix)

    @property
    def plan(self) -> Path:
        return self.onnx.with_suffix(".run") / "plan.json"


PRUNECLI = [sys.executable, "-m", "prunecli"]
"""Starts a process of its own."""

QUICK = ["--latency-seconds", "0.01"]


def make_bench(folder: Path) -> Bench:
    """Write all files of a bench."""
    source = folder / "net.py"
    source.write_text(NET_SOURCE)
    images, labels = coloured(EACH)
    judged, right = coloured(EACH, seed=1)
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=judged, y_test=right)
    network = trained(images, labels)
    torch.save(network.state_dict(), folder / "weights.pt")
    save_file(network.state_dict(), folder / "weights.safetensors")
    program = torch.export.export(
        network,
        (torch.rand(2, 3, SIZE, SIZE),),
        dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
    )
    torch.export.save(program, folder / "program.pt2")
    return Bench(
        folder,
        f"{source}:net",
        folder / "weights.pt",
        folder / "program.pt2",
        folder / "data.npz",
    )


def build() -> nn.Module:
    """What `NET_SOURCE` builds."""
    space: dict[str, object] = {}
    exec(NET_SOURCE, space)
    factory = space["net"]
    assert callable(factory)
    network = factory()
    assert isinstance(network, nn.Module)
    return network


def coloured(each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images `(N, 3, 8, 8)`, brighter in the colour of their class."""
    noise = np.random.default_rng(seed)
    labels = np.arange(each * CLASSES) % CLASSES
    images = noise.integers(0, 120, (len(labels), 3, SIZE, SIZE))
    images[np.arange(len(labels)), labels] += 80
    return images.astype(np.uint8), labels


def trained(images: np.ndarray, labels: np.ndarray) -> nn.Module:
    """A network that gets (nearly) all of the images right."""
    torch.manual_seed(0)
    network = build()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    inputs, wanted = torch.tensor(images).float() / 255, torch.tensor(labels)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), wanted).backward()
        optimizer.step()
    return network.eval()


def image_folder(root: Path, each: int = 20) -> Path:
    """The same images as PNG files in one folder per class."""
    images, labels = coloured(each)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index:03}.png")
    return root


def run(*arguments: str | Path) -> Ended:
    """`prunecli` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["prunecli", *map(str, arguments)]),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())


def run_line(line: str) -> Ended:
    """The same for a command line as one types it."""
    return run(*shlex.split(line))


def environment(**more: str) -> Mapping[str, str]:
    """For a process of its own: this source tree, one thread, nothing that changes the output."""
    dropped = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "CI")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def run_apart(*arguments: str | Path, cwd: Path, command: Sequence[str] = PRUNECLI) -> Ended:
    """`python -m prunecli` with these arguments, in a process of its own."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def files_in(folder: Path) -> list[str]:
    """Everything below `folder`, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
