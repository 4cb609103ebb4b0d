"""What the zoo knows of a model: how to build it and what to feed it. Never builds anything."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from prunecli.compat import declare_missing_operators

Inputs = tuple[Tensor, ...] | dict[str, Tensor]

Feed = Callable[[nn.Module, int, Generator], Inputs]
"""(model, batch, generator) -> positional or named inputs."""


@dataclass(frozen=True)
class Entry:
    """One row of the zoo.

    Attributes:
        name: unique within its family.
        build: makes the model with random weights; imports what it needs.
        feed: makes inputs.
        core: belongs to the set that every change is checked against.
    """

    name: str
    build: Callable[[], nn.Module]
    feed: Feed
    core: bool = False


def images(*shape: int) -> Feed:
    """One normal random input of `shape` after the batch."""

    def feed(model: nn.Module, batch: int, generator: Generator) -> Inputs:
        return (torch.randn((batch, *shape), generator=generator),)

    return feed


def package(name: str) -> Any:
    """An optional package that may stand on torchvision, which needs help beside a CPU torch.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    declare_missing_operators()
    return importlib.import_module(name)
