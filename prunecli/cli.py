"""The command line: parse, call the pipeline, print. Nothing else parses or prints.

Stage: cli, above all others. `prunecli --help` must not import torch, so everything heavy is
imported inside the command.
"""

import contextlib
import shlex
import sys
from dataclasses import fields
from typing import Annotated, Any, TypeVar

import typer

from prunecli import __version__, launch
from prunecli.choices import (
    Augment,
    DeviceName,
    OptimizerName,
    Precision,
    Recovery,
    ScheduleName,
    Storage,
    TrainScope,
)
from prunecli.config import (
    MeasureConfig,
    ModelConfig,
    RestoreConfig,
    ResumeConfig,
    RunConfig,
)
from prunecli.endings import errors_as_lines, interruptible
from prunecli.options import given, removing, running
from prunecli.parsing import parse_margin
from prunecli.progress import SilentReporter, make_reporter
from prunecli.sources import DataFlags, read_data, read_model
from prunecli.tuning import TrainConfig
from prunecli.wishes import RemovalFlags, read_removal

FELL_SHORT = 1
"""Exit code of a run whose files were written but miss what was asked for."""

Flags = TypeVar("Flags", DataFlags, RemovalFlags)

app = typer.Typer(
    help="Prune a trained network, fine-tune it, and ship a smaller, faster, verified ONNX file.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the `prunecli` script."""
    with errors_as_lines():
        # Not standalone: then wrong flags come out as errors, to be shown like all others.
        sys.exit(app(prog_name="prunecli", standalone_mode=False))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"prunecli {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def prune(
    context: typer.Context,
    checkpoint: given.Checkpoint,
    model: given.Model = None,
    model_arg: given.ModelArgs = None,
    input_shape: given.InputShape = None,
    inputs: given.Inputs = None,
    allow_pickle: given.AllowPickle = False,
    data: given.Data = None,
    mean: given.Mean = None,
    std: given.Std = None,
    image_size: given.ImageSize = None,
    max_samples: given.MaxSamples = None,
    task: given.TaskOption = None,
    target_column: given.TargetColumn = None,
    input_column: given.InputColumn = None,
    max_length: given.MaxLength = None,
    processor: given.ProcessorOption = None,
    strategy: removing.StrategyOption = None,
    target_macs: removing.TargetMacs = None,
    target_params: removing.TargetParams = None,
    channel_ratio: removing.ChannelRatio = None,
    layers_to_drop: removing.LayersToDrop = None,
    weight_sparsity: removing.WeightSparsity = None,
    pattern: removing.PatternOption = None,
    mask_biases: removing.MaskBiases = None,
    threshold: removing.ThresholdOption = None,
    scope: removing.ScopeOption = None,
    layer: removing.LayerRules = None,
    keep: removing.KeepPatterns = None,
    round_to: removing.RoundTo = None,
    criterion: removing.CriterionOption = None,
    calibration_samples: removing.CalibrationSamples = None,
    schedule: removing.PruneScheduleOption = None,
    rounds: removing.Rounds = None,
    max_drop: removing.MaxDrop = None,
    curve: removing.CurveOption = None,
    power: removing.Power = None,
    initial: removing.Initial = None,
    begin: removing.Begin = None,
    end: removing.End = None,
    every: removing.Every = None,
    regrow: removing.Regrow = None,
    dense_epochs: removing.DenseEpochs = None,
    sparse_epochs: removing.SparseEpochs = None,
    penalty: removing.PenaltyOption = None,
    penalty_strength: removing.PenaltyStrength = None,
    recover: running.Recover = Recovery.RECONSTRUCT,
    epochs: running.Epochs = 1.0,
    lr: running.LearningRate = None,
    batch_size: running.BatchSize = 32,
    optimizer: running.Optimizer = OptimizerName.NESTEROV.value,
    momentum: running.Momentum = None,
    weight_decay: running.WeightDecay = None,
    l1_decay: running.L1Decay = 0.0,
    clip: running.Clip = None,
    layer_decay: running.LayerDecay = 1.0,
    train_scope: running.TrainScopeOption = TrainScope.ALL.value,
    lr_schedule: running.LrSchedule = ScheduleName.ONE_CYCLE,
    warm_up: running.WarmUp = None,
    lr_decay: running.LrDecay = None,
    lr_every: running.LrEvery = None,
    staircase: running.Staircase = False,
    label_smoothing: running.LabelSmoothing = 0.0,
    distill: running.Distill = None,
    distill_features: running.DistillFeatures = 0.0,
    temperature: running.Temperature = 4.0,
    precision: running.PrecisionOption = Precision.FP32,
    accumulate: running.Accumulate = 1,
    patience: running.Patience = None,
    until_recovered: running.UntilRecovered = None,
    max_epochs: running.MaxEpochs = None,
    ema: running.Ema = None,
    mixup: running.Mixup = None,
    cutmix: running.CutMix = None,
    augment: running.AugmentOption = Augment.AUTO,
    seed: running.Seed = 0,
    device: running.Device = DeviceName.AUTO,
    output: running.Output = None,
    report: running.ReportFile = None,
    log_dir: running.LogDir = None,
    keep_run: running.KeepRun = False,
    storage: running.StorageOption = Storage.SPARSE,
    explain: running.Explain = False,
    dry_run: running.DryRun = False,
    quiet: running.Quiet = False,
    as_json: running.AsJson = False,
    atol: running.Atol = 1e-4,
    threads: running.Threads = 1,
    latency_batch: running.LatencyBatch = 1,
    latency_seconds: running.LatencySeconds = 3.0,
) -> None:
    """Prune CHECKPOINT, fine-tune it on --data, write a verified ONNX file, print a comparison.

    Targets say what is left (--target-macs 50% keeps at most half); ratios say what goes
    (--channel-ratio 0.3 removes 30%). Without any, --target-macs 50%.

    Exit codes: 0 good, 1 the result failed verification or fell short of --max-drop or
    --until-recovered, 2 wrong input.
    """
    config = RunConfig(
        model=read_model(checkpoint, model, model_arg, input_shape, inputs, allow_pickle),
        output=output,
        removal=read_removal(_flags(context, RemovalFlags)),
        data=read_data(_flags(context, DataFlags)),
        recover=recover,
        train=TrainConfig(
            epochs,
            lr,
            batch_size,
            optimizer,
            lr_schedule,
            weight_decay,
            momentum,
            seed,
            device,
            warm_up=warm_up,
            decay=lr_decay,
            every=lr_every,
            staircase=staircase,
            l1=l1_decay,
            clip=clip,
            layer_decay=layer_decay,
            scope=train_scope,
            label_smoothing=label_smoothing,
            distill=distill,
            features=distill_features,
            temperature=temperature,
            precision=precision,
            accumulate=accumulate,
            patience=patience,
            until=None
            if until_recovered is None
            else parse_margin("--until-recovered", until_recovered),
            max_epochs=max_epochs,
            ema=ema,
            mixup=mixup,
            cutmix=cutmix,
            augment=augment,
        ),
        measure=MeasureConfig(threads, latency_batch, latency_seconds),
        storage=storage,
        report=report,
        atol=atol,
        dry_run=dry_run,
        command=_command(),
        log_dir=log_dir,
        keep_run=keep_run,
    )
    with interruptible():
        _run(config, quiet, as_json, explain)


@app.command()
def inspect(
    checkpoint: given.Checkpoint,
    model: given.Model = None,
    model_arg: given.ModelArgs = None,
    input_shape: given.InputShape = None,
    inputs: given.Inputs = None,
    allow_pickle: given.AllowPickle = False,
    quiet: running.Quiet = False,
    as_json: running.AsJson = False,
) -> None:
    """Show what could be pruned from CHECKPOINT, without data and without changing anything.

    A table of groups of channels, heads or units that go together, the smallest size that can be
    reached, and what stays as it is, with the reason.

    With the folder that `prune` left (model.run beside model.onnx): what went there, and why.

    Exit codes: 0 good, 1 nothing can be pruned, 2 wrong input.
    """
    config = read_model(checkpoint, model, model_arg, input_shape, inputs, allow_pickle)
    with interruptible():
        _run(config, quiet, as_json, explain=True)


@app.command()
def restore(
    run: removing.RunFolder,
    layer: removing.RestoredLayers,
    epochs: running.Epochs = 0.0,
    output: running.Output = None,
    report: running.ReportFile = None,
    keep_run: running.KeepRun = False,
    model: given.ModelAgain = None,
    task: given.TaskAgain = None,
    explain: running.Explain = False,
    quiet: running.Quiet = False,
    as_json: running.AsJson = False,
) -> None:
    """Give layers of a pruned network back what it lost there, and fine-tune on.

    RUN is the folder that `prune` left: model.run beside model.onnx. What returns has the values
    of the original; what stayed keeps what it learnt. The folder is as trusted as code: it says
    which file builds the network.

    Exit codes: 0 good, 1 the result failed verification, 2 wrong input.
    """
    config = RestoreConfig(
        run, tuple(layer), epochs, output, report, _command(), keep_run, model, task
    )
    with interruptible():
        _run(config, quiet, as_json, explain)


@app.command()
def resume(
    run: removing.RunFolder,
    report: running.ReportFile = None,
    keep_run: running.KeepRun = False,
    model: given.ModelAgain = None,
    task: given.TaskAgain = None,
    explain: running.Explain = False,
    quiet: running.Quiet = False,
    as_json: running.AsJson = False,
) -> None:
    """Go on with a run that was interrupted, crashed or killed, from its last epoch.

    RUN is the folder that it left: model.run beside model.onnx. All flags are those that the run
    began with; it ends with the numbers that it would have had without the interruption. The
    folder is as trusted as code: it says which file builds the network.

    Exit codes: as those of the command that goes on.
    """
    with interruptible():
        _run(ResumeConfig(run, report, keep_run, model, task), quiet, as_json, explain)


def _run(
    config: RunConfig | ModelConfig | RestoreConfig | ResumeConfig,
    quiet: bool,
    as_json: bool,
    explain: bool = False,
) -> None:
    from prunecli import pipeline
    from prunecli.report.as_json import to_json
    from prunecli.report.record import Report
    from prunecli.report.show import show

    # stdout is for the result alone, whatever a model's own code or a library prints.
    with contextlib.redirect_stdout(sys.stderr):
        reporter = make_reporter(quiet) if launch.is_main() else SilentReporter(warns=False)
        report = pipeline.perform(config, reporter)
    if not launch.is_main():
        return
    if as_json:
        sys.stdout.write(to_json(report))
    else:
        show(report, sys.stdout, explain=explain)
    if isinstance(report, Report) and report.missed:
        sys.exit(FELL_SHORT)


def _command() -> str:
    return shlex.join(["prunecli", *sys.argv[1:]])


def _flags(context: typer.Context, kind: type[Flags]) -> Flags:
    """The flags of a record, as they were given."""
    asked = {item.name: context.params[item.name] for item in fields(kind)}
    frozen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in asked.items()
        if value is not None
    }
    return kind(**frozen)
