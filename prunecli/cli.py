"""The command line: parse, call the pipeline, print. Nothing else parses or prints.

`prunecli --help` must not import torch, so everything heavy is imported inside the command.
"""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from prunecli import __version__
from prunecli.config import (
    Criterion,
    DataConfig,
    DeviceName,
    MeasureConfig,
    ModelConfig,
    OptimizerName,
    Quantity,
    RunConfig,
    ScheduleName,
    Strategy,
    Target,
    TrainConfig,
    parse_floats,
    parse_model_args,
    parse_ratio,
    parse_shape,
    parse_target,
)
from prunecli.errors import ConfigError, PrunecliError

app = typer.Typer(
    help="Prune a trained network, fine-tune it, and ship a smaller, faster, verified ONNX file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

MODEL, DATA, SIZE, TRAINING, OUTPUT = "Model", "Data", "How much", "Fine-tuning", "Output"


def main() -> None:
    """Entry point of the `prunecli` script."""
    app()


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"prunecli {__version__}")
        raise typer.Exit()


@contextlib.contextmanager
def errors_as_lines() -> Iterator[None]:
    """One line `ERROR`, one line `TIP`, and the exit code of the error's kind."""
    try:
        yield
    except PrunecliError as error:
        print(f"ERROR {error.message}", file=sys.stderr)
        if error.hint:
            print(f"TIP {error.hint}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("INTERRUPTED nothing was written", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def prune(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Trained network: a state dict (.pt, .pth, .th, .safetensors) with --model, "
            "or an exported program (.pt2)."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="ONNX file to write.", rich_help_panel=OUTPUT)
    ] = Path("model.onnx"),
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data set: folder of images (one sub-folder per class), parquet, .npz/.npy or "
            "CSV. Without it nothing is trained and no accuracy is shown.",
            rich_help_panel=DATA,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:factory",
            help="Builds the network for a state dict: FILE.py:factory or package.module:factory.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="key=value",
            help="Keyword argument for the factory; repeatable.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            metavar="1,3,32,32",
            help="Shape of an input, batch first. Taken from the data if left out.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Unpickle arbitrary objects from the checkpoint. This can run code from it.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="structured: remove whole coupled channels.", rich_help_panel=SIZE
        ),
    ] = Strategy.STRUCTURED,
    criterion: Annotated[
        str,
        typer.Option(
            help="How a channel's importance is judged: "
            + ", ".join(item.value for item in Criterion)
            + ".",
            rich_help_panel=SIZE,
        ),
    ] = Criterion.L2.value,
    target_macs: Annotated[
        str | None,
        typer.Option(
            metavar="50%|20M",
            help="MACs that may STAY: 50% keeps at most half. The default, with 50%.",
            rich_help_panel=SIZE,
        ),
    ] = None,
    target_params: Annotated[
        str | None,
        typer.Option(
            metavar="50%|1M",
            help="Parameters that may STAY: 50% keeps at most half.",
            rich_help_panel=SIZE,
        ),
    ] = None,
    channel_ratio: Annotated[
        str | None,
        typer.Option(
            metavar="0.3",
            help="Share of the channels that GOES: 0.3 removes 30% of them.",
            rich_help_panel=SIZE,
        ),
    ] = None,
    epochs: Annotated[
        int,
        typer.Option(help="Passes over the training data; 0: none.", rich_help_panel=TRAINING),
    ] = 1,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate.", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[int, typer.Option(rich_help_panel=TRAINING)] = 128,
    optimizer: Annotated[
        OptimizerName, typer.Option(rich_help_panel=TRAINING)
    ] = OptimizerName.SGD,
    schedule: Annotated[
        ScheduleName, typer.Option(rich_help_panel=TRAINING)
    ] = ScheduleName.ONE_CYCLE,
    seed: Annotated[
        int, typer.Option(help="For splits, order, augmentation.", rich_help_panel=TRAINING)
    ] = 0,
    device: Annotated[DeviceName, typer.Option(rich_help_panel=TRAINING)] = DeviceName.AUTO,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="a,b,c",
            help="Per channel, subtracted after scaling to 0-1.",
            rich_help_panel=DATA,
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="a,b,c", help="Per channel, divided by last.", rich_help_panel=DATA
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Resize images to N x N pixels.", rich_help_panel=DATA),
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option(help="Read at most N examples of each split.", rich_help_panel=DATA),
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Threads for the latency measurement.", rich_help_panel=OUTPUT)
    ] = 1,
    latency_batch: Annotated[
        int, typer.Option(help="Batch for the latency measurement.", rich_help_panel=OUTPUT)
    ] = 1,
    report: Annotated[
        Path | None,
        typer.Option(help="Write everything as JSON.", rich_help_panel=OUTPUT),
    ] = None,
    atol: Annotated[
        float,
        typer.Option(
            help="Largest difference between onnxruntime and PyTorch, relative to the larger "
            "of 1 and the largest output.",
            rich_help_panel=OUTPUT,
        ),
    ] = 1e-4,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the plan; write nothing.", rich_help_panel=OUTPUT
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the report as JSON instead of a table.", rich_help_panel=OUTPUT
        ),
    ] = False,
) -> None:
    """Prune CHECKPOINT, fine-tune it on --data, write a verified ONNX file, print a comparison.

    Targets say what is left (--target-macs 50% keeps at most half); ratios say what goes
    (--channel-ratio 0.3 removes 30%). Without any, --target-macs 50%.

    Exit codes: 0 good, 1 the result failed verification, 2 wrong input.
    """
    with errors_as_lines():
        config = RunConfig(
            model=ModelConfig(
                checkpoint,
                model,
                parse_model_args(tuple(model_arg or ())),
                parse_shape(input_shape) if input_shape else None,
                allow_pickle,
            ),
            output=output,
            target=_target(target_macs, target_params, channel_ratio),
            data=_data(data, mean, std, image_size, max_samples, seed),
            strategy=strategy,
            criterion=_criterion(criterion),
            train=TrainConfig(
                epochs, lr, batch_size, optimizer, schedule, seed=seed, device=device
            ),
            measure=MeasureConfig(threads, latency_batch),
            report=report,
            atol=atol,
            dry_run=dry_run,
            command=shlex.join(["prunecli", *sys.argv[1:]]),
        )
        _run(config, quiet, as_json)


def _run(config: RunConfig, quiet: bool, as_json: bool) -> None:
    from prunecli.pipeline import prune as run
    from prunecli.progress import make_reporter
    from prunecli.report.as_json import to_json
    from prunecli.report.show import show

    report = run(config, make_reporter(quiet))
    if as_json:
        sys.stdout.write(to_json(report))
    else:
        show(report, sys.stdout)


def _target(macs: str | None, params: str | None, ratio: str | None) -> Target:
    given = {
        "--target-macs": macs,
        "--target-params": params,
        "--channel-ratio": ratio,
    }
    used = [flag for flag, text in given.items() if text is not None]
    if len(used) > 1:
        raise ConfigError(f"target: one is needed, got {' and '.join(used)}", "keep one of them")
    if params is not None:
        return parse_target(Quantity.PARAMS, params)
    if ratio is not None:
        return parse_ratio(ratio)
    return parse_target(Quantity.MACS, macs if macs is not None else "50%")


def _criterion(text: str) -> Criterion:
    try:
        return Criterion(text)
    except ValueError:
        known = ", ".join(item.value for item in Criterion)
        raise ConfigError(
            f"--criterion: unknown, got {text!r}", f"choose one of: {known}"
        ) from None


def _data(
    path: Path | None,
    mean: str | None,
    std: str | None,
    image_size: int | None,
    max_samples: int | None,
    seed: int,
) -> DataConfig | None:
    if path is None:
        given = {
            "--mean": mean,
            "--std": std,
            "--image-size": image_size,
            "--max-samples": max_samples,
        }
        used = [flag for flag, value in given.items() if value is not None]
        if used:
            raise ConfigError(f"{used[0]}: needs --data", "give --data PATH, or drop the flag")
        return None
    return DataConfig(
        path,
        parse_floats("--mean", mean) if mean else None,
        parse_floats("--std", std) if std else None,
        image_size,
        max_samples,
        seed,
    )
