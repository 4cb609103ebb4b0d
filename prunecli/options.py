"""The flags of the command line: their names, help texts and panels, as types.

Stage: cli. In: nothing. Out: one annotated type for each flag, which a command's parameters use.
Never reads a value; see `parsing` and `config` for what is allowed.
"""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.choices import Criterion, DeviceName, OptimizerName, Recovery, ScheduleName, Strategy

MODEL, DATA, SIZE, TRAINING, OUTPUT = "Model", "Data", "How much", "Fine-tuning", "Output"

# Model

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Trained network: a state dict (.pt, .pth, .th, .safetensors) with --model, an "
        "exported program (.pt2), or a Hugging Face folder (config.json and .safetensors).",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:factory",
        help="Builds the network for a state dict: FILE.py:factory, package.module:factory, "
        "or an architecture's name: timm:NAME, torchvision:NAME.",
        rich_help_panel=MODEL,
    ),
]
ModelArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--model-arg",
        metavar="key=value",
        help="Keyword argument for the factory; repeatable.",
        rich_help_panel=MODEL,
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        metavar="1,3,32,32",
        help="Shape of the only input, batch first: the short form of --input for images. Taken "
        "from the data if left out.",
        rich_help_panel=MODEL,
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="name=dtype[shape]",
        help="An input by the name it has in the network's forward, batch first; repeatable. A "
        "name in place of a number is a free axis: 'input_ids=int64\\[batch,seq]' (tried with some "
        "length, or with the one you write: seq=128). 'batch.image' is an entry of a dictionary.",
        rich_help_panel=MODEL,
    ),
]
AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        help="Unpickle arbitrary objects from the checkpoint. This can run code from it.",
        rich_help_panel=MODEL,
    ),
]

# Data

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Data set: folder of images (one sub-folder per class), parquet, .npz/.npy or CSV. "
        "Without it nothing is trained and no accuracy is shown.",
        rich_help_panel=DATA,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="a,b,c",
        help="Per channel, subtracted after scaling to 0-1.",
        rich_help_panel=DATA,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(metavar="a,b,c", help="Per channel, divided by last.", rich_help_panel=DATA),
]
ImageSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Resize images to N x N pixels.", rich_help_panel=DATA),
]
MaxSamples = Annotated[
    int | None,
    typer.Option(metavar="N", help="Read at most N examples of each split.", rich_help_panel=DATA),
]

# How much

StrategyOption = Annotated[
    Strategy,
    typer.Option(
        "--strategy", help="structured: remove whole coupled channels.", rich_help_panel=SIZE
    ),
]
CriterionOption = Annotated[
    str,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="How a channel's importance is judged: "
        + ", ".join(item.value for item in Criterion)
        + ".",
        rich_help_panel=SIZE,
    ),
]
RoundTo = Annotated[
    int,
    typer.Option(
        "--round-to",
        metavar="N",
        min=1,
        help="Keep widths on multiples of N where a layer is wide enough: runtimes work on "
        "blocks of channels, so one channel fewer can even be slower. 1: no rounding.",
        rich_help_panel=SIZE,
    ),
]
TargetMacs = Annotated[
    str | None,
    typer.Option(
        metavar="50%|20M",
        help="MACs that may STAY: 50% keeps at most half. The default, with 50%.",
        rich_help_panel=SIZE,
    ),
]
TargetParams = Annotated[
    str | None,
    typer.Option(
        metavar="50%|1M",
        help="Parameters that may STAY: 50% keeps at most half.",
        rich_help_panel=SIZE,
    ),
]
ChannelRatio = Annotated[
    str | None,
    typer.Option(
        metavar="0.3",
        help="Share of the channels that GOES: 0.3 removes 30% of them.",
        rich_help_panel=SIZE,
    ),
]

# Fine-tuning

Recover = Annotated[
    Recovery,
    typer.Option(
        "--recover",
        help="Before training: reconstruct solves for the weights that best reproduce the "
        "original's layers from what is left (needs --data, no labels).",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int,
    typer.Option(
        metavar="N", help="Passes over the training data; 0: none.", rich_help_panel=TRAINING
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="F",
        help="Peak learning rate; left out, one that suits the optimizer.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(metavar="N", help="Examples of each step.", rich_help_panel=TRAINING),
]
Optimizer = Annotated[
    OptimizerName,
    typer.Option(help="How the weights are changed.", rich_help_panel=TRAINING),
]
Schedule = Annotated[
    ScheduleName,
    typer.Option(help="How the learning rate goes to 0.", rich_help_panel=TRAINING),
]
Seed = Annotated[
    int,
    typer.Option(metavar="N", help="For splits, order, augmentation.", rich_help_panel=TRAINING),
]
Device = Annotated[
    DeviceName,
    typer.Option(help="Where fine-tuning runs.", rich_help_panel=TRAINING),
]

# Output

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE.onnx",
        help="ONNX file to write; .pt2 and .plan.json go beside it. Left out: the checkpoint's "
        "name with -pruned.onnx, in the current folder.",
        rich_help_panel=OUTPUT,
    ),
]
Threads = Annotated[
    int,
    typer.Option(metavar="N", help="Threads while latency is measured.", rich_help_panel=OUTPUT),
]
LatencyBatch = Annotated[
    int,
    typer.Option(metavar="N", help="Batch while latency is measured.", rich_help_panel=OUTPUT),
]
LatencySeconds = Annotated[
    float,
    typer.Option(metavar="F", help="About how long to measure each file.", rich_help_panel=OUTPUT),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.json",
        help="Write everything as JSON, while it becomes known.",
        rich_help_panel=OUTPUT,
    ),
]
Atol = Annotated[
    float,
    typer.Option(
        metavar="F",
        help="Largest difference between onnxruntime and PyTorch, relative to the larger of 1 "
        "and the largest output.",
        rich_help_panel=OUTPUT,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan; write nothing.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress.", rich_help_panel=OUTPUT)]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the report as JSON instead of a table.", rich_help_panel=OUTPUT
    ),
]
