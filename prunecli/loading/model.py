"""From the user's words to a network: the loading stage in one function.

Stage: loading. In: a `ModelConfig`. Out: a `LoadedModel`. Never runs the network, never lets the
checkpoint run code unless the user allows pickles, never writes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from prunecli.config import InputSpec, ModelConfig
from prunecli.errors import CheckpointError, ConfigError, ModelError
from prunecli.files import sha256_of
from prunecli.loading.detect import FileKind, detect
from prunecli.loading.factory import build_module
from prunecli.loading.finite import check_finite
from prunecli.loading.huggingface import Folder, is_folder, load_folder
from prunecli.loading.match import load_into
from prunecli.loading.program import load_program
from prunecli.loading.unpickle import read_object
from prunecli.loading.weights import find_candidates, find_module

UNPICKLED = "unpickled with --allow-pickle"


@dataclass(frozen=True)
class LoadedModel:
    """The trained network; exactly one of `module` and `program` is set.

    Attributes:
        module: in evaluation mode, on the CPU, floating parameters and buffers in float32.
        program: for `.pt2` checkpoints.
        sha256: of the checkpoint file, in hex.
        notes: what was done, in words.
        inputs: what the network takes, where the checkpoint tells.
        folder: what a Hugging Face folder tells besides.
    """

    module: nn.Module | None
    program: ExportedProgram | None
    sha256: str
    notes: tuple[str, ...]
    inputs: tuple[InputSpec, ...] = ()
    folder: Folder | None = None


def load_model(config: ModelConfig) -> LoadedModel:
    """Read the checkpoint and build the network.

    Raises:
        ConfigError: `--model` or `--model-arg` make no sense here.
        CheckpointError: the file cannot be read, or does not fit the model.
        ModelError: the user's code raised, or built something unusable.
    """
    path = config.checkpoint
    if config.args and config.factory is None:
        raise ConfigError(
            f"--model-arg: needs --model, got {', '.join(config.args)} without it",
            "add --model FILE.py:factory, or drop --model-arg",
        )
    if is_folder(path):
        if config.factory is not None:
            raise ConfigError(
                f"--model: a folder with config.json needs none, got {config.factory} for {path}",
                "drop --model, or name the .safetensors file in it as the checkpoint",
            )
        found = load_folder(path)
        module, more = _normalised(found.module)
        check_finite(path, dict(module.named_parameters()), dict(module.named_buffers()))
        notes = (*found.notes, *more)
        return LoadedModel(module, None, found.sha256, notes, found.inputs, found.folder)
    kind = detect(path)
    if kind is FileKind.PROGRAM:
        if config.factory is not None:
            raise ConfigError(
                f"--model: an exported program needs none, got {config.factory} for {path}",
                "drop --model, or give a state dict as the checkpoint",
            )
        program = load_program(path, allow_pickle=config.allow_pickle)
        return LoadedModel(None, program, sha256_of(path), ())
    held, unpickled = read_object(path, kind, allow_pickle=config.allow_pickle)
    if config.factory is None:
        module, notes = _pickled_module(path, held)
    else:
        module, notes = _built_module(config, config.factory, held)
    if unpickled:
        notes = (UNPICKLED, *notes)
    module, more = _normalised(module)
    return LoadedModel(module, None, sha256_of(path), (*notes, *more))


def _built_module(
    config: ModelConfig, factory: str, held: object
) -> tuple[nn.Module, tuple[str, ...]]:
    path = config.checkpoint
    # Before the user's code runs: a broken checkpoint should not wait for a slow factory.
    candidates = find_candidates(path, held)
    module, parameters = build_module(factory, config.args, (Path.cwd(),))
    module, notes = _unwrapped(module)
    return module, (*notes, *load_into(path, module, candidates, factory, parameters))


def _pickled_module(path: Path, held: object) -> tuple[nn.Module, tuple[str, ...]]:
    found = find_module(held)
    if not found:
        place = find_candidates(path, held)[0].place
        raise CheckpointError(
            f"checkpoint {path}: a state dict needs the model's code, got weights in {place} only",
            "name what builds the model: --model FILE.py:factory or package.module:factory",
        )
    chosen, *others = found
    notes = [f'module read from "{chosen.where}"'] if chosen.where else []
    notes.extend(f'"{other.where}" holds a module too, not used' for other in others)
    if isinstance(chosen.module, torch.jit.ScriptModule):
        raise CheckpointError(
            f"checkpoint {path}: must hold a plain nn.Module, got a TorchScript module",
            "save the Python model, before torch.jit.script or trace",
        )
    module, more = _unwrapped(chosen.module)
    check_finite(path, dict(module.named_parameters()), dict(module.named_buffers()))
    return module, (*notes, *more)


def _unwrapped(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The network inside wrappers for several devices, averaging and torch.compile."""
    notes: list[str] = []
    while True:
        inner = None
        if isinstance(
            module,
            nn.DataParallel
            | nn.parallel.DistributedDataParallel
            | torch.optim.swa_utils.AveragedModel,
        ):
            inner = module.module
        elif "_orig_mod" in module._modules:
            inner = module._modules["_orig_mod"]
        if not isinstance(inner, nn.Module):
            return module, tuple(notes)
        notes.append(f"{type(module).__name__} unwrapped")
        module = inner


def _normalised(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Evaluation mode, CPU, float32."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        if tensor.is_meta:
            raise ModelError(
                f"model: every tensor must have values, got {name} on the meta device",
                "build the model on the CPU in the factory",
            )
    kinds = {str(t.dtype).removeprefix("torch.") for _, t in tensors if t.is_floating_point()}
    notes = tuple(f"{kind} model converted to float32" for kind in sorted(kinds - {"float32"}))
    return module.to("cpu").float().eval(), notes
