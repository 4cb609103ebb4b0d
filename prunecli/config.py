"""Everything the user can ask for, as frozen records.

Stage: config. In: values from the command line (see `parsing`) or from Python. Out: records.
Never imports torch, never touches the file system.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunecli.choices import Augment, PruneSchedule, Recovery, Storage, TaskName
from prunecli.errors import ConfigError
from prunecli.ranges import NOT_NEGATIVE, POSITIVE, WHOLE, check_range
from prunecli.removal import Removal
from prunecli.tuning import TrainConfig, check_seed


@dataclass(frozen=True)
class Axis:
    """One axis of an input.

    Attributes:
        name: of a free axis; `None` where the extent is fixed.
        extent: the fixed extent; for a free axis the extent to try the network with, or `None`.
    """

    name: str | None
    extent: int | None

    def in_words(self) -> str:
        """As it is written in `--input`."""
        return "=".join(str(part) for part in (self.name, self.extent) if part is not None)


@dataclass(frozen=True)
class InputSpec:
    """One input of the network, as `--input` says it.

    Attributes:
        name: the parameter of the network's `forward`; `batch.image` for an entry of a dictionary.
        dtype: a name such as `float32` or `int64`.
        axes: the batch axis first.
    """

    name: str
    dtype: str
    axes: tuple[Axis, ...]

    def in_words(self) -> str:
        """As it is written on the command line."""
        return f"{self.name}={self.dtype}[{','.join(axis.in_words() for axis in self.axes)}]"


@dataclass(frozen=True)
class ModelConfig:
    """Where the trained network comes from.

    Attributes:
        checkpoint: state dict, safetensors, `.pt2` program or (with `allow_pickle`) a module.
        factory: `FILE.py:factory` or `package.module:factory`; needed for state dicts.
        args: keyword arguments for the factory, as written.
        input_shape: shape of the only input, batch first, images as a rule; `None` means: see
            `inputs`, or take it from the program or from the data.
        inputs: all inputs by name; not together with `input_shape`.
        allow_pickle: whether unpickling arbitrary objects, which can run code, is allowed.
    """

    checkpoint: Path
    factory: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    allow_pickle: bool = False
    inputs: tuple[InputSpec, ...] = ()

    def __post_init__(self) -> None:
        if self.inputs and self.input_shape is not None:
            raise ConfigError(
                "--input-shape: is the short form of one --input, got both",
                "keep --input, and write all inputs that way",
            )


@dataclass(frozen=True)
class HeadConfig:
    """One of several outputs that are trained together.

    Attributes:
        name: of the output, and of its target in the data.
        weight: of its loss in the sum.
    """

    name: str
    task: TaskName
    weight: float = 1.0


@dataclass(frozen=True)
class TaskConfig:
    """What the network is trained for: one of the three.

    Attributes:
        name: one task, on the first output.
        heads: several at once; the first one's metric leads.
        custom: the user's own, `FILE.py:Task`.
    """

    name: TaskName | None = None
    heads: tuple[HeadConfig, ...] = ()
    custom: str | None = None

    def __post_init__(self) -> None:
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"--task: every output comes once, got {', '.join(names)}",
                "e.g. --task 'digit=classification:1.0,angle=regression:0.5'",
            )
        for head in self.heads:
            if not (math.isfinite(head.weight) and head.weight > 0):
                raise ConfigError(
                    f"--task: weights must be positive, got {head.weight:g} for {head.name}",
                    f"e.g. --task {head.name}={head.task}:1.0",
                )
            if head.task is TaskName.MATCH:
                raise ConfigError(
                    f"--task: match is for all outputs together, got it for {head.name}",
                    "use --task match alone, or --distill for a part of the loss",
                )

    @property
    def labelled(self) -> bool:
        """Whether examples must come with targets."""
        return self.name is not TaskName.MATCH

    def in_words(self) -> str:
        """As it is written on the command line."""
        heads = (f"{head.name}={head.task}:{head.weight:g}" for head in self.heads)
        return self.custom or self.name or ",".join(heads)


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from and how they are prepared.

    Attributes:
        path: a file or folder; see `data` for what is understood.
        mean, std: per channel (or one for all), applied after scaling images to 0-1.
        image_size: images are resized to this many pixels, height and width.
        max_samples: at most so many examples of each split are read.
        seed: for every split made here.
        task: what the targets are; `None`: what they look like.
        target_columns, input_columns: columns of a table; found by name and type when left out.
        max_length: tokens of texts, or samples of sounds, that are kept; `None`: the longest's.
        processor: folder with the network's tokenizer or feature extractor, where it does not lie
            beside the network.
    """

    path: Path
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    max_samples: int | None = None
    seed: int = 0
    task: TaskConfig | None = None
    target_columns: tuple[str, ...] = ()
    input_columns: tuple[str, ...] = ()
    max_length: int | None = None
    processor: Path | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.max_length is not None and self.max_length < 4:
            raise ConfigError(
                f"--max-length: at least 4 is needed, got {self.max_length}", "e.g. --max-length 64"
            )
        for name in self.input_columns:
            if name in self.target_columns:
                raise ConfigError(
                    f"--input-column: must differ from --target-column, got {name!r} in both",
                    "a column is either what the network sees or what it is to say",
                )
        if self.target_columns and self.task is not None and not self.task.labelled:
            raise ConfigError(
                f"--target-column: has no effect with --task {self.task.in_words()}",
                "leave --target-column out",
            )


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

    def __post_init__(self) -> None:
        for flag, value, allowed, example in (
            ("--threads", self.threads, WHOLE, "1"),
            ("--latency-batch", self.batch, WHOLE, "1"),
            ("--latency-seconds", self.seconds, POSITIVE, "3"),
        ):
            check_range(flag, value, allowed, f"e.g. {flag} {example}")


@dataclass(frozen=True)
class RunConfig:
    """One `prunecli prune`.

    Attributes:
        removal: what goes, how it is judged, and when.
        output: the ONNX file; `.pt2` and the folder `.run` are written beside it. `None` names it
            after the checkpoint, in the current folder.
        recover: `reconstruct` solves for new weights on unlabelled training examples.
        storage: how masked weights are written into the ONNX file.
        atol: largest difference between onnxruntime and PyTorch, relative to the larger of 1
            and the largest absolute output.
        command: the command line, for the file's metadata.
        keep_run: what an unfinished run would need to go on stays after one that ended well.
        log_dir: folder that TensorBoard reads how training goes from.
    """

    model: ModelConfig
    removal: Removal
    output: Path | None = None
    data: DataConfig | None = None
    recover: Recovery = Recovery.RECONSTRUCT
    train: TrainConfig = field(default_factory=TrainConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    storage: Storage = Storage.SPARSE
    report: Path | None = None
    atol: float = 1e-4
    dry_run: bool = False
    command: str = ""
    keep_run: bool = False
    log_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.keep_run and self.dry_run:
            raise ConfigError(
                "--keep-run: a dry run writes nothing that could be kept, got --dry-run",
                "leave one of them out",
            )
        check_range("--atol", self.atol, NOT_NEGATIVE, "e.g. --atol 1e-4")
        _check_needs(self)
        _check_labels(self)
        _check_training(self)


@dataclass(frozen=True)
class RestoreConfig:
    """One `prunecli restore`.

    Attributes:
        run: the folder that a run left.
        layers: patterns of layers that get back what they lost.
        epochs: fine-tuning afterwards.
        output: the ONNX file; `None` names it after the run's, in its folder.
        keep_run: as in `RunConfig`.
        model, task: code of the run, said again by the user; see `pipeline.trust`.
    """

    run: Path
    layers: tuple[str, ...]
    epochs: float = 0.0
    output: Path | None = None
    report: Path | None = None
    command: str = ""
    keep_run: bool = False
    model: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class ResumeConfig:
    """One `prunecli resume`.

    Attributes:
        run: the folder of a run that did not end.
        report: instead of where that run wanted its report.
        keep_run: as in `RunConfig`, also where that run did not ask for it.
        model, task: as in `RestoreConfig`.
    """

    run: Path
    report: Path | None = None
    keep_run: bool = False
    model: str | None = None
    task: str | None = None


def _check_needs(config: RunConfig) -> None:
    """Refuse what needs data, or training, in a run without.

    Raises:
        ConfigError: such a combination.
    """
    removal, timing = config.removal, config.removal.timing
    on_data = {
        f"--criterion {removal.criterion(item).in_words()}": removal.criterion(item).needs_data(
            item
        )
        for item in removal.strategies
    }
    training = {
        f"--schedule {timing.schedule.value}": timing.schedule is not PruneSchedule.ONE_SHOT,
        "--dense-epochs": timing.dense_epochs > 0,
    }
    needs = {
        **on_data,
        **training,
        "--sparse-epochs": timing.sparse_epochs > 0,
        "--max-drop": timing.largest_drop is not None,
    }
    if config.data is None:
        for flag, needed in needs.items():
            if needed:
                raise ConfigError(f"{flag}: looks at examples, got no --data", "give --data PATH")
    for flag, needed in training.items():
        if needed and config.train.epochs <= timing.dense_epochs:
            raise ConfigError(
                f"{flag}: needs training before, got --epochs {config.train.epochs:g}",
                "raise --epochs",
            )


def _check_labels(config: RunConfig) -> None:
    """Refuse criteria that look at a loss where there are no labels.

    Raises:
        ConfigError: such a criterion.
    """
    task = None if config.data is None else config.data.task
    if task is None or task.labelled:
        return
    for strategy in config.removal.strategies:
        criterion = config.removal.criterion(strategy)
        if criterion.needs_loss(strategy):
            raise ConfigError(
                f"--criterion {criterion.in_words()}: looks at a loss, got --task "
                f"{task.in_words()}, for which there are no labels",
                "use a --criterion that needs none: l2, wanda or activation (for layers: "
                "similarity)",
            )


def _check_training(config: RunConfig) -> None:
    """Refuse what accompanies training in a run without, and patience that cannot end.

    Raises:
        ConfigError: such a flag.
    """
    train, timing = config.train, config.removal.timing
    given = {
        "--patience": train.patience is not None,
        "--until-recovered": train.until is not None,
        "--ema": train.ema is not None,
        "--distill-features": train.features > 0,
        "--mixup": train.mixup is not None,
        "--cutmix": train.cutmix is not None,
        f"--augment {train.augment.value}": train.augment is not Augment.AUTO,
        "--log-dir": config.log_dir is not None,
    }
    for flag in (flag for flag, asked in given.items() if asked):
        if config.data is None:
            raise ConfigError(f"{flag}: is about training, got no --data", "give --data PATH")
        if not train.epochs:
            raise ConfigError(f"{flag}: is about training, got --epochs 0", "raise --epochs")
    longest = train.longest if train.until is not None else train.epochs / timing.rounds
    if train.patience is not None and train.patience >= longest:
        of = f"{longest:g} in each round" if timing.rounds > 1 else f"{longest:g}"
        raise ConfigError(
            f"--patience: must be less than the epochs, got {train.patience} of {of}",
            "raise --epochs, or leave it out",
        )
