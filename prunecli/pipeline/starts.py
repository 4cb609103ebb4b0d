"""What an unfinished run began with, and whether that is still what it finds.

Stage: pipeline. In: a configuration, the loaded checkpoint, the data. Out: `Start`, and the file
that holds it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from prunecli import crew
from prunecli.choices import DeviceName
from prunecli.config import RestoreConfig, RunConfig
from prunecli.data import DataSet
from prunecli.errors import StateError
from prunecli.files import sha256_of
from prunecli.graph.nodes import operator_name
from prunecli.pipeline.prepare import Prepared
from prunecli.records import MALFORMED, from_plain, to_plain
from prunecli.recovery import choose_device
from prunecli.tasks import Task

STATE_VERSION = 2
START_FILE = "start.json"

EXAMPLES = 256
"""So many examples of each split are compared, evenly spread; of single numbers, all."""


class Command(StrEnum):
    """What can be gone on with."""

    PRUNE = "prune"
    RESTORE = "restore"


@dataclass(frozen=True)
class Start:
    """What a run began with.

    Attributes:
        config: of the command, as plain values: `RunConfig` or `RestoreConfig`.
        folder: the current one, which relative paths in `config` start from.
        sha256: of the checkpoint.
        source: SHA-256 of what else was read: the network that `restore` starts from.
        network, data: what the model's code built, and what was read; see `prints`.
        task: SHA-256 of the code of a task of the user's own.
        made_with: versions and the like, on which the last digits of the results depend.
    """

    command: Command
    config: Mapping[str, Any]
    folder: str
    sha256: str
    source: str
    network: str
    data: str
    made_with: Mapping[str, str]
    task: str = ""
    version: int = STATE_VERSION


def start_of(
    command: Command,
    config: RunConfig | RestoreConfig,
    run: RunConfig,
    prepared: Prepared,
    source: str = "",
) -> Start:
    """What a run begins with.

    Args:
        config: of the command.
        run: what that comes to, with the device.
    """
    return Start(
        command,
        to_plain(config),
        str(Path.cwd()),
        prepared.sha256,
        source,
        network_print(prepared.captured.network),
        "" if prepared.data is None else data_print(prepared.data),
        _made_with(run.train.device),
        _task_print(run),
    )


def _task_print(run: RunConfig) -> str:
    custom = run.data and run.data.task and run.data.task.custom
    code = Path((custom or "").rpartition(":")[0])
    return sha256_of(code) if code.is_file() else ""


def network_print(network: fx.GraphModule) -> str:
    """SHA-256 over operators, names and shapes; the values are those of the checkpoint."""
    digest = hashlib.sha256()
    for node in network.graph.nodes:
        name = operator_name(node) if node.op == "call_function" else str(node.target)
        digest.update(f"{node.op} {name}\n".encode())
    for name, parameter in network.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
    return digest.hexdigest()


def data_print(data: DataSet) -> str:
    """SHA-256 over labels and some examples of each split, and how they are prepared."""
    words = (_name_of(data.task), data.labels, data.names, data.preprocess, data.contents)
    digest = hashlib.sha256(str(words).encode())
    for split in (data.train, data.choose, data.validation):
        # Without labels, targets are what the original answers: no part of the data.
        targets = split.targets if data.task.labelled else ()
        for tensor in (*(_some(item) for item in split.inputs), *map(_some, targets)):
            digest.update(f"{len(split)} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _name_of(task: Task) -> str:
    """What `--task` says, of a file only what it names there: from another folder, its path is
    another one. The code itself is in `Start.task`."""
    file, _, name = task.name.rpartition(":")
    return name if file.endswith(".py") else task.name


def _some(tensor: Tensor) -> Tensor:
    """All of a list of numbers; of anything larger some examples, evenly spread."""
    if tensor.dim() == 1:
        return tensor
    places = torch.arange(0, len(tensor), max(1, len(tensor) // EXAMPLES))[:EXAMPLES]
    return tensor[places]


def _made_with(device: DeviceName) -> dict[str, str]:
    found = choose_device(device)
    return {
        "prunecli": version("prunecli"),
        "torch": version("torch"),
        "device": torch.cuda.get_device_name(found) if found.type == "cuda" else "cpu",
        "threads": str(torch.get_num_threads()),
        "number of processes": str(crew.size()),
    }


def check_same(run: Path, before: Start, now: Start) -> list[str]:
    """Refuse to go on with something else than the run began with.

    Returns:
        What may change the last digits of the results, in words.

    Raises:
        StateError: it would end with other numbers.
    """
    for what, hint, old, new in (
        ("checkpoint", "put the original back", before.sha256, now.sha256),
        ("run", "put the pruned network back (.pt2)", before.source, now.source),
        ("model", "put its code back as it was (--model)", before.network, now.network),
        ("data", "put the data back as it was", before.data, now.data),
        ("task", "put its code back as it was (--task)", before.task, now.task),
    ):
        if old != new:
            raise StateError(
                f"resume {run}: the {what} must be the one that the run began with, got another",
                f"{hint}, or prune again",
            )
    return [
        f"{what} was {old} and is {now.made_with.get(what)}"
        for what, old in before.made_with.items()
        if old != now.made_with.get(what)
    ]


def start_to_json(start: Start) -> str:
    """As text."""
    return json.dumps(to_plain(start), indent=1, ensure_ascii=False) + "\n"


def read_start(state: Path) -> Start:
    """What the run began with whose state lies in this folder.

    Raises:
        StateError: it cannot be read, or is that of another version.
    """
    path = state / START_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["version"] != STATE_VERSION:
            raise StateError(
                f"state {path}: version {STATE_VERSION} is needed, got {document['version']}",
                "go on with the version of prunecli that began it, or prune again",
            )
        return from_plain(Start, document)
    except (OSError, *MALFORMED) as error:
        raise StateError(
            f"state {path}: cannot be read: {error}", "prune again: a new run starts over"
        ) from error
