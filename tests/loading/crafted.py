"""Checkpoints made to order for the tests of the loading stage."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Touch:
    """Unpickling one creates a file: the harmless stand-in for an attack."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


class Net(nn.Module):
    """A small network with every kind of entry in its state dict."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))


NET_SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)

    def forward(self, x):
        return self.linear(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))
"""


def trained(seed: int = 0) -> Net:
    """A network whose values are all different from a fresh one's."""
    torch.manual_seed(seed)
    net = Net()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.fill_(7)
    return net.eval()


def save_program(path: Path, model: nn.Module, *inputs: Any, **options: Any) -> None:
    """Export and save."""
    program = torch.export.export(model.eval(), inputs, **options)
    torch.export.save(program, path)


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Copy a zip archive with some of its members changed, added or removed.

    `change` gets the members by name without the top folder.
    """
    with zipfile.ZipFile(source) as archive:
        top = archive.namelist()[0].partition("/")[0]
        members = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{top}/{name}", data)


def edit_json(members: dict[str, bytes], name: str, change: Callable[[Any], None]) -> None:
    """Change one JSON member in place."""
    parsed = json.loads(members[name])
    change(parsed)
    members[name] = json.dumps(parsed).encode()


def torch_saved(value: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def plain_pickled(value: object) -> bytes:
    """What pickle.dump writes."""
    return pickle.dumps(value, protocol=2)
