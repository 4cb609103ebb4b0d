"""Everything the user can ask for, as frozen records, and the parsing of quantities.

Stage: config. In: strings and numbers from the command line or from Python. Out: validated
records. Never imports torch, never touches the file system.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from prunecli.errors import ConfigError


class Strategy(StrEnum):
    """What kind of thing is removed."""

    STRUCTURED = "structured"


class Criterion(StrEnum):
    """How a unit's importance is judged. See `prunecli.importance`."""

    L1 = "l1"
    L2 = "l2"
    RANDOM = "random"


class OptimizerName(StrEnum):
    """Optimizers for fine-tuning."""

    SGD = "sgd"
    ADAMW = "adamw"


class ScheduleName(StrEnum):
    """Learning-rate schedules for fine-tuning."""

    ONE_CYCLE = "one-cycle"
    COSINE = "cosine"


class DeviceName(StrEnum):
    """Where fine-tuning runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Quantity(StrEnum):
    """What a target counts."""

    MACS = "macs"
    PARAMS = "params"
    CHANNELS = "channels"


@dataclass(frozen=True)
class Target:
    """How much of the network may stay.

    Exactly one of `share` and `absolute` is set.

    Attributes:
        quantity: what is counted.
        share: the part of the original that may stay, in (0, 1).
        absolute: the number (MACs at batch 1, or parameters) that may stay.
        text: the target as the user wrote it.
    """

    quantity: Quantity
    share: float | None
    absolute: float | None
    text: str

    def limit(self, original: float) -> float:
        """The largest value allowed, given the original network's value."""
        return self.absolute if self.absolute is not None else original * (self.share or 0.0)

    def in_words(self) -> str:
        """The target as a sentence fragment, e.g. `keep at most 50% of the MACs`."""
        noun = {
            Quantity.MACS: "MACs",
            Quantity.PARAMS: "parameters",
            Quantity.CHANNELS: "channels",
        }[self.quantity]
        if self.absolute is not None:
            return f"keep at most {self.text} {noun}"
        if self.quantity is Quantity.CHANNELS:
            return f"remove {_percent(1 - (self.share or 0.0))} of the {noun}"
        return f"keep at most {_percent(self.share or 0.0)} of the {noun}"


_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(r"^([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgbt]?)$", re.IGNORECASE)


def parse_target(quantity: Quantity, text: str) -> Target:
    """Read what may stay: `50%`, or an absolute number such as `20M`.

    Raises:
        ConfigError: not a number, or a share outside 0-100% (both ends excluded).
    """
    flag = f"--target-{quantity.value}"
    hint = f"say what may stay: {flag} 50% keeps at most half; absolute numbers such as 20M work too"
    stripped = text.strip()
    if stripped.endswith("%"):
        share = _to_float(stripped[:-1])
        if share is None:
            raise ConfigError(f"{flag}: a percentage or a number is needed, got {text!r}", hint)
        if not 0.0 < share < 100.0:
            raise ConfigError(f"{flag}: must lie between 0% and 100%, got {text!r}", hint)
        return Target(quantity, share / 100.0, None, stripped)
    match = _NUMBER.match(stripped)
    if match is None:
        raise ConfigError(f"{flag}: a percentage or a number is needed, got {text!r}", hint)
    value = float(match.group(1)) * _SUFFIX[match.group(2).lower()]
    if value < 1.0:
        raise ConfigError(f"{flag}: an absolute target must be at least 1, got {text!r}", hint)
    return Target(quantity, None, value, stripped)


def parse_ratio(text: str) -> Target:
    """Read `--channel-ratio`: the share of channels that goes, `0.3` or `30%`.

    Raises:
        ConfigError: not a number, or outside 0-1 (both ends excluded).
    """
    flag = "--channel-ratio"
    hint = f"say what goes: {flag} 0.3 (or 30%) removes 30% of the channels"
    stripped = text.strip()
    value = _to_float(stripped[:-1] if stripped.endswith("%") else stripped)
    if value is None:
        raise ConfigError(f"{flag}: a ratio is needed, got {text!r}", hint)
    ratio = value / 100.0 if stripped.endswith("%") else value
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"{flag}: must lie between 0 and 1, got {text!r}", hint)
    return Target(Quantity.CHANNELS, 1.0 - ratio, None, stripped)


def parse_floats(flag: str, text: str) -> tuple[float, ...]:
    """Read `0.485,0.456,0.406`.

    Raises:
        ConfigError: a part is not a number.
    """
    values = [_to_float(part) for part in text.split(",")]
    if any(value is None for value in values):
        raise ConfigError(
            f"{flag}: numbers separated by commas are needed, got {text!r}",
            f"for example {flag} 0.5,0.5,0.5",
        )
    return tuple(value for value in values if value is not None)


def parse_shape(text: str) -> tuple[int, ...]:
    """Read `--input-shape 1,3,32,32`; the first number is the batch.

    Raises:
        ConfigError: fewer than two numbers, or one that is not a positive integer.
    """
    parts = text.replace("x", ",").split(",")
    hint = "for example --input-shape 1,3,224,224 (batch, channels, height, width)"
    if len(parts) < 2 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--input-shape: positive integers are needed, got {text!r}", hint)
    return tuple(int(part) for part in parts)


def parse_model_args(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read repeated `--model-arg key=value`.

    Raises:
        ConfigError: a pair without `=`, or with an empty or repeated key.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(
                f"--model-arg: key=value is needed, got {pair!r}", "e.g. --model-arg num_classes=10"
            )
        if key in found:
            raise ConfigError(f"--model-arg: {key} is given twice", "keep one of them")
        found[key] = value
    return found


def _to_float(text: str) -> float | None:
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return value if abs(value) != float("inf") and value == value else None


def _percent(share: float) -> str:
    return f"{share * 100:.4g}%"


@dataclass(frozen=True)
class ModelConfig:
    """Where the trained network comes from.

    Attributes:
        checkpoint: state dict, safetensors, `.pt2` program or (with `allow_pickle`) a module.
        factory: `FILE.py:factory` or `package.module:factory`; needed for state dicts.
        args: keyword arguments for the factory, as written.
        input_shape: shape of one example input, batch first; `None` means: take it from the
            program or from the data.
        allow_pickle: whether unpickling arbitrary objects, which can run code, is allowed.
    """

    checkpoint: Path
    factory: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    allow_pickle: bool = False


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from and how they are prepared.

    Attributes:
        path: folder of images, parquet file or folder, `.npz`/`.npy`, or CSV.
        mean, std: per channel (or one for all), applied after scaling images to 0-1.
        image_size: images are resized to this many pixels, height and width.
        max_samples: at most so many examples of each split are read.
        seed: for every split made here.
    """

    path: Path
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    max_samples: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """How the pruned network is fine-tuned.

    Attributes:
        epochs: passes over the training data; 0 trains nothing.
        lr: peak learning rate; `None` takes the optimizer's default here.
    """

    epochs: int = 1
    lr: float | None = None
    batch_size: int = 128
    optimizer: OptimizerName = OptimizerName.SGD
    schedule: ScheduleName = ScheduleName.ONE_CYCLE
    weight_decay: float = 5e-4
    momentum: float = 0.9
    seed: int = 0
    device: DeviceName = DeviceName.AUTO


@dataclass(frozen=True)
class MeasureConfig:
    """How latency is measured in onnxruntime.

    Attributes:
        threads: intra-op threads.
        batch: examples per call.
        seconds: roughly how long to measure each file.
    """

    threads: int = 1
    batch: int = 1
    seconds: float = 3.0


@dataclass(frozen=True)
class RunConfig:
    """One `prunecli prune`.

    Attributes:
        output: the ONNX file; `.pt2` and `.plan.json` are written beside it.
        atol: largest difference between onnxruntime and PyTorch, relative to the larger of 1
            and the largest absolute output.
        command: the command line, for the file's metadata.
    """

    model: ModelConfig
    output: Path
    target: Target
    data: DataConfig | None = None
    strategy: Strategy = Strategy.STRUCTURED
    criterion: Criterion = Criterion.L2
    train: TrainConfig = field(default_factory=TrainConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    report: Path | None = None
    atol: float = 1e-4
    dry_run: bool = False
    command: str = ""
