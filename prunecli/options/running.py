"""Flags about training, measuring and what is written.

Stage: options. In: nothing. Out: one annotated type for each flag. Never reads a value.
"""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.choices import (
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
        "original's layers from what is left (needs --data, no labels).",
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
    typer.Option(metavar="N", help="Examples of each step.", rich_help_panel=TRAINING),
]
Optimizer = Annotated[
    OptimizerName,
    typer.Option(help="How the weights are changed.", rich_help_panel=TRAINING),
]
LrSchedule = Annotated[
    ScheduleName,
    typer.Option(
        "--lr-schedule", help="How the learning rate goes to 0.", rich_help_panel=TRAINING
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
        help="Numbers that training computes with; bf16 is faster where the processor has it.",
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
