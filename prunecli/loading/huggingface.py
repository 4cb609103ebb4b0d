"""A Hugging Face folder: `config.json` says how to build the network, safetensors hold it.

Stage: loading. In: a folder. Out: the network with its weights, and what inputs it takes.
Downloads nothing, runs no code from the folder.
"""

import hashlib
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from prunecli.compat import declare_missing_operators
from prunecli.config import Axis, InputSpec
from prunecli.errors import CheckpointError, MissingExtraError
from prunecli.files import sha256_of
from prunecli.loading.library import library_factory
from prunecli.loading.match import load_into
from prunecli.loading.usercode import user_code
from prunecli.loading.weights import Candidate

CONFIG = "config.json"
BATCH = Axis("batch", None)
TYPES = "token_type_ids"


@dataclass(frozen=True)
class Folder:
    """What a folder tells besides the network.

    Attributes:
        optional: inputs that the network may be given, and does not need.
        longest: tokens that it has positions for; `None` where that is not known.
        classes: names of its outputs, in order; empty where they have none.
    """

    path: Path
    optional: tuple[InputSpec, ...] = ()
    longest: int | None = None
    classes: tuple[str, ...] = ()


TRIED, SHORT = 64, 16
"""Tokens that a network is tried with where it has room for them, and where it has not."""


@dataclass(frozen=True)
class FromFolder:
    """What a folder held.

    Attributes:
        inputs: what the network takes, as far as its configuration tells.
        sha256: over the weight files, in hex.
    """

    module: nn.Module
    inputs: tuple[InputSpec, ...]
    sha256: str
    notes: tuple[str, ...]
    folder: Folder


def is_folder(path: Path) -> bool:
    """Whether `path` is such a folder."""
    return (path / CONFIG).is_file()


def load_folder(path: Path) -> FromFolder:
    """Build the network and load its weights.

    Raises:
        CheckpointError: no weights, weights that do not fit, or code that only the hub has.
        MissingExtraError: transformers (or timm) is not installed.
    """
    config = _read_config(path)
    files = sorted(path.glob("*.safetensors"))
    if not files:
        held = ", ".join(sorted(item.name for item in path.iterdir())[:5])
        raise CheckpointError(
            f"checkpoint {path}: must hold a .safetensors file beside {CONFIG}, got {held}",
            "save it with model.save_pretrained(folder), or name the weights file and --model",
        )
    if "architectures" not in config and isinstance(config.get("architecture"), str):
        module, inputs, notes = _of_timm(path, config, files[0])
    else:
        module, inputs, notes = _of_transformers(path, config)
    digest = hashlib.sha256("".join(sha256_of(file) for file in files).encode()).hexdigest()
    sha256 = digest if len(files) > 1 else sha256_of(files[0])
    return FromFolder(module, inputs, sha256, notes, _told(path, config, module))


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {path / CONFIG}: must be readable JSON, got {error}",
            "download or copy the folder again",
        ) from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"checkpoint {path / CONFIG}: must hold an object, got {type(found).__name__}",
            "download or copy the folder again",
        )
    return found


def _of_timm(
    path: Path, config: Mapping[str, Any], file: Path
) -> tuple[nn.Module, tuple[InputSpec, ...], tuple[str, ...]]:
    name = str(config["architecture"])
    build = library_factory(f"timm:{name}", "timm", name)
    assert build is not None
    known = ("num_classes", "global_pool")
    arguments = {key: config[key] for key in known if config.get(key) is not None}
    with user_code(f"checkpoint {path}", (), "check config.json and the installed timm"):
        module = build(**arguments, **(config.get("model_args") or {}))
    assert isinstance(module, nn.Module)
    held = Candidate("", load_file(file, device="cpu"), averaged=False)
    notes = load_into(file, module, (held,), f"timm:{name}", {})
    size = (config.get("pretrained_cfg") or {}).get("input_size")
    first = next(iter(inspect.signature(module.forward).parameters))
    inputs = (_spec(first, "float32", *size),) if size else ()
    return module, inputs, (f"built as timm:{name}", *notes)


def _of_transformers(
    path: Path, config: Mapping[str, Any]
) -> tuple[nn.Module, tuple[InputSpec, ...], tuple[str, ...]]:
    transformers = library()
    names = config.get("architectures") or []
    name = str(names[0]) if names else "AutoModel"
    if not hasattr(transformers, name):
        raise CheckpointError(
            f"checkpoint {path}: the architecture must be one of transformers "
            f"{transformers.__version__}, got {name}",
            "its code lies elsewhere: name what builds it with --model FILE.py:factory, and the "
            ".safetensors file as the checkpoint",
        )
    hint = "check that the folder is complete and that this transformers version knows it"
    with user_code(f"checkpoint {path}", (), hint), quiet(transformers):
        module, loading = getattr(transformers, name).from_pretrained(
            path,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported below, by name
        )
    _check_loaded(path, loading)
    for part in module.modules():
        # What past steps cached is no part of a network's answer.
        if hasattr(getattr(part, "config", None), "use_cache"):
            part.config.use_cache = False
    inputs = _within(tuple(_inputs(module)), _longest(config, module))
    return module, inputs, (f"built as transformers.{name}",)


def library() -> Any:
    """The package transformers.

    Raises:
        MissingExtraError: it is not installed.
    """
    if find_spec("transformers") is None:
        raise MissingExtraError("transformers", extra="transformers")
    declare_missing_operators()
    return importlib.import_module("transformers")


class quiet:
    """No progress bars and no advice from the library for the length of a block."""

    def __init__(self, transformers: Any) -> None:
        self.logging = transformers.utils.logging

    def __enter__(self) -> None:
        self.level = self.logging.get_verbosity()
        self.logging.set_verbosity_error()
        self.logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self.logging.set_verbosity(self.level)
        self.logging.enable_progress_bar()


def _check_loaded(path: Path, loading: Mapping[str, Any]) -> None:
    """The library fills what is missing with random numbers and only warns."""
    for key, what in (("missing_keys", "every weight"), ("mismatched_keys", "weights that fit")):
        found = sorted(
            str(item if isinstance(item, str) else item[0]) for item in loading.get(key) or ()
        )
        if found:
            shown = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise CheckpointError(
                f"checkpoint {path}: must hold {what}, got {len(found)} missing or of another "
                f"shape: {shown}",
                "config.json and the weights do not belong together, or the network was never "
                "trained for this task",
            )


def _inputs(module: Any) -> Iterator[InputSpec]:
    """What the network takes: its signature says which inputs, its configuration how large."""
    taken = inspect.signature(module.forward).parameters
    config = module.config
    main = getattr(module, "main_input_name", "input_ids")
    vision = getattr(config, "vision_config", None)
    if "pixel_values" in taken and (main == "pixel_values" or vision is not None):
        yield from _images(vision or config)
    if main == "input_features" and "input_features" in taken:
        frames = 2 * getattr(config, "max_source_positions", 1500)
        yield _spec("input_features", "float32", getattr(config, "num_mel_bins", 80), frames)
    if main == "input_values" and "input_values" in taken:
        yield InputSpec("input_values", "float32", (BATCH, Axis("time", 16000)))
    if "input_ids" in taken and (
        main == "input_ids" or getattr(config, "text_config", None) is not None
    ):
        yield _tokens("input_ids", "seq")
        if "attention_mask" in taken:
            yield _tokens("attention_mask", "seq")
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in taken:
        yield _tokens("decoder_input_ids", "target")


def told_by(path: Path) -> Folder:
    """What a folder tells of the network that it was saved with, which is not built.

    Raises:
        CheckpointError: its configuration cannot be read.
    """
    return _told(path, _read_config(path), None) if is_folder(path) else Folder(path)


def _told(path: Path, config: Mapping[str, Any], module: nn.Module | None) -> Folder:
    taken = () if module is None else inspect.signature(module.forward).parameters
    types = config.get("type_vocab_size") or 0
    optional = (_tokens(TYPES, "seq"),) if TYPES in taken and types > 1 else ()
    names = config.get("id2label")
    classes: tuple[str, ...] = ()
    if isinstance(names, dict) and all(str(place) in names for place in range(len(names))):
        classes = tuple(str(names[str(place)]) for place in range(len(names)))
    return Folder(path, optional, _longest(config, module), classes)


def _longest(config: Mapping[str, Any], module: nn.Module | None) -> int | None:
    """Tokens that the network has positions for. Some count positions from behind padding's."""
    keys = ("max_position_embeddings", "n_positions", "max_seq_len")
    known = [int(config[key]) for key in keys if isinstance(config.get(key), int)]
    for name, part in () if module is None else module.named_modules():
        if isinstance(part, nn.Embedding) and name.endswith("position_embeddings"):
            behind = 0 if part.padding_idx is None else part.padding_idx + 1
            known.append(part.num_embeddings - behind)
    return min((number for number in known if number > 0), default=None)


def _within(specs: tuple[InputSpec, ...], longest: int | None) -> tuple[InputSpec, ...]:
    """Inputs that are tried no longer than the network has positions. Padding alone may pass at
    any length: where positions count from behind padding's, it has none."""
    if longest is None or longest >= TRIED:
        return specs
    free = dict.fromkeys(axis.name for spec in specs for axis in spec.axes[1:] if axis.name)
    # Of different extents, so that they are not taken for one axis.
    extents = {
        name: min(SHORT * (place + 1), max(longest - place, 1)) for place, name in enumerate(free)
    }
    return tuple(
        replace(
            spec,
            axes=tuple(
                replace(axis, extent=extents[axis.name])
                if axis.name in extents and axis.extent is None
                else axis
                for axis in spec.axes
            ),
        )
        for spec in specs
    )


def _images(config: Any) -> Iterator[InputSpec]:
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    yield _spec("pixel_values", "float32", getattr(config, "num_channels", 3), height, width)


def _tokens(name: str, axis: str) -> InputSpec:
    return InputSpec(name, "int64", (BATCH, Axis(axis, None)))


def _spec(name: str, dtype: str, *extents: int) -> InputSpec:
    return InputSpec(name, dtype, (BATCH, *(Axis(None, int(extent)) for extent in extents)))
