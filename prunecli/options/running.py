"""Flags about training, measuring and what is written.

Stage: options. In: nothing. Out: one annotated type for each flag. Never reads a value.
"""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.choices import (
    Augment,
    DeviceName,
    OptimizerName,
    Precision,
    Recovery,
    ScheduleName,
    Storage,
)

TRAINING, OUTPUT = "Fine-tuning", "Output"

Recover = Annotated[
    Recovery,
    typer.Option(
        "--recover",
        help="Before training: reconstruct solves for the weights that best reproduce the "
        "original's layers from what is left, bn only measures the statistics of batch norms anew "
        "(both need --data, no labels).",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    float,
    typer.Option(
        metavar="N",
        help="Passes over the training data, in all rounds together; 0: none, 0.5: half of one.",
        rich_help_panel=TRAINING,
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
    typer.Option(
        metavar="N",
        help="Examples of each batch, of all processes together.",
        rich_help_panel=TRAINING,
    ),
]
Optimizer = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(OptimizerName)}, or any other class of torch.optim.",
        rich_help_panel=TRAINING,
    ),
]
Momentum = Annotated[
    float | None,
    typer.Option(metavar="F", help="Left out: 0.9, where it has any.", rich_help_panel=TRAINING),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="L2 decay; none on norms and biases. Left out: 5e-4, where the optimizer has any.",
        rich_help_panel=TRAINING,
    ),
]
L1Decay = Annotated[
    float,
    typer.Option(metavar="F", help="L1 decay; none on norms and biases.", rich_help_panel=TRAINING),
]
Clip = Annotated[
    float | None,
    typer.Option(
        metavar="F", help="Largest norm of all gradients together.", rich_help_panel=TRAINING
    ),
]
LayerDecay = Annotated[
    float,
    typer.Option(
        metavar="F",
        help="Factor of the learning rate from each layer to the one before it.",
        rich_help_panel=TRAINING,
    ),
]
TrainScopeOption = Annotated[
    str,
    typer.Option(
        "--train-scope",
        metavar="all|local|PATTERN,...",
        help="What is changed: all layers, those that lost something or read from one that did "
        "(local), or those that match patterns.",
        rich_help_panel=TRAINING,
    ),
]
LabelSmoothing = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Part of each label that is spread over all classes.",
        rich_help_panel=TRAINING,
    ),
]
LrSchedule = Annotated[
    ScheduleName,
    typer.Option("--lr-schedule", help="How the learning rate changes.", rich_help_panel=TRAINING),
]
WarmUp = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Part of the training in which the rate first rises. Left out: 0.1 for one-cycle, "
        "0 for others.",
        rich_help_panel=TRAINING,
    ),
]
LrDecay = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="Factor of the schedules step and exponential. Left out: 0.1.",
        rich_help_panel=TRAINING,
    ),
]
LrEvery = Annotated[
    float | None,
    typer.Option(
        metavar="EPOCHS",
        help="When it has been applied once. Left out: a third of the training.",
        rich_help_panel=TRAINING,
    ),
]
Staircase = Annotated[
    bool,
    typer.Option(
        "--staircase",
        help="With exponential: all at once, not little by little.",
        rich_help_panel=TRAINING,
    ),
]
Distill = Annotated[
    float | None,
    typer.Option(
        "--distill",
        metavar="SHARE",
        help="Part of the loss that is the distance to the original's outputs, 0 to 1; the rest "
        "is the loss on the labels. Left out: 0.9 for classes, 0 for numbers.",
        rich_help_panel=TRAINING,
    ),
]
DistillFeatures = Annotated[
    float,
    typer.Option(
        "--distill-features",
        metavar="WEIGHT",
        help="Add to the loss so many times the distance to the original's features at the ends "
        "of blocks, on the channels that stay, relative to their variance.",
        rich_help_panel=TRAINING,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(
        metavar="T",
        help="Divides the outputs in that distance; the larger, the more counts what the "
        "original says about unlikely classes.",
        rich_help_panel=TRAINING,
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="Numbers that training computes with; bf16 is faster where the processor has it, "
        "fp16 needs a GPU (the loss is scaled).",
        rich_help_panel=TRAINING,
    ),
]
Accumulate = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Batches whose gradients are added up before each step: as a batch N times as large, "
        "in the memory of one (but for batch norm, which sees one at a time).",
        rich_help_panel=TRAINING,
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Stop after N epochs without a better score on the part held out for choosing.",
        rich_help_panel=TRAINING,
    ),
]
UntilRecovered = Annotated[
    str | None,
    typer.Option(
        "--until-recovered",
        metavar="0.3pp|5%",
        help="Train on, --epochs at a time, until the score on the validation split is this close "
        "to the original's, in points (0.3pp) or as a share of it (5%).",
        rich_help_panel=TRAINING,
    ),
]
MaxEpochs = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="At most so many, with --until-recovered. Left out: ten times --epochs.",
        rich_help_panel=TRAINING,
    ),
]
Ema = Annotated[
    float | None,
    typer.Option(
        metavar="DECAY",
        help="Score and keep an average of the weights over the steps, such as 0.999.",
        rich_help_panel=TRAINING,
    ),
]
Mixup = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA",
        help="Train on blends of two examples, with shares from Beta(ALPHA, ALPHA).",
        rich_help_panel=TRAINING,
    ),
]
CutMix = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA",
        help="Train on examples with a box of another one pasted in; with --mixup, each batch "
        "draws one of the two.",
        rich_help_panel=TRAINING,
    ),
]
AugmentOption = Annotated[
    Augment,
    typer.Option(
        "--augment",
        help="How much training images, sounds or texts are changed at random; auto is "
        "standard for colour images, and none for anything else.",
        rich_help_panel=TRAINING,
    ),
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
        help="ONNX file to write; .pt2 and the folder .run go beside it. Left out: the "
        "checkpoint's name with -pruned.onnx, in the current folder.",
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
KeepRun = Annotated[
    bool,
    typer.Option(
        "--keep-run",
        help="After a run that ended well keep what it would have needed to be resumed, too.",
        rich_help_panel=OUTPUT,
    ),
]
LogDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write how training goes for TensorBoard (pip install 'prunecli\\[tensorboard]').",
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
StorageOption = Annotated[
    Storage,
    typer.Option(
        "--storage",
        help="How masked weights are written: sparse (what is not zero, and the gaps "
        "between; onnxruntime expands it when it loads the file), or dense.",
        rich_help_panel=OUTPUT,
    ),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Say for each group what went, its scores against what stayed, and why.",
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
