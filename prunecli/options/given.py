"""Flags about what comes in: the network and the data.

Stage: options. In: nothing. Out: one annotated type for each flag. Never reads a value.
"""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.choices import TaskName

MODEL, DATA = "Model", "Data"

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

ModelAgain = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="package.module:factory",
        help="What the run began with, once more: needed where that is code of an installed "
        "package, which the run's folder alone may not name.",
        rich_help_panel=MODEL,
    ),
]

# Data

Data = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Data set: a folder of images or .wav files (one sub-folder per class), of images/ "
        "and masks/, parquet, .npz/.npy, CSV, JSON lines, or plain text. Without it nothing is "
        "trained and no accuracy is shown.",
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
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME|OUTPUT=NAME:WEIGHT,...|FILE.py:Task",
        help=f"What the network is trained for: {', '.join(TaskName)} (the original's outputs, no "
        "labels needed), several outputs at once (the first leads), or a task of your own. Left "
        "out: classification or regression, as the targets look.",
        rich_help_panel=DATA,
    ),
]
TargetColumn = Annotated[
    str | None,
    typer.Option(
        "--target-column",
        metavar="NAME,...",
        help="Columns of CSV, JSON lines or parquet that hold the targets: several for multilabel, "
        "regression and several outputs. Left out: by name.",
        rich_help_panel=DATA,
    ),
]
InputColumn = Annotated[
    str | None,
    typer.Option(
        "--input-column",
        metavar="NAME,...",
        help="Columns that hold the inputs: the text (two for pairs), the image, the audio, or all "
        "features. Left out: by type and name.",
        rich_help_panel=DATA,
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Cut texts to N tokens, sounds to N samples. Left out: as long as the longest.",
        rich_help_panel=DATA,
    ),
]
ProcessorOption = Annotated[
    Path | None,
    typer.Option(
        "--processor",
        metavar="FOLDER",
        help="The network's tokenizer or feature extractor, as transformers saves it. Left out: "
        "what lies beside the network.",
        rich_help_panel=DATA,
    ),
]
TaskAgain = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="package.module:Task",
        help="A task of your own that the run began with, once more; see --model.",
        rich_help_panel=DATA,
    ),
]
