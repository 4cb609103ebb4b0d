"""Flags about what goes, and when.

Stage: options. In: nothing. Out: one annotated type for each flag. Never reads a value.
"""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.choices import CRITERIA, Curve, Penalty

SIZE, WHEN = "What goes", "When"

StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME[,NAME]",
        help="What goes: structured (whole coupled channels, heads, hidden units; the default), "
        "neuron (the same, judged by what they do on data), layer (whole residual blocks and "
        "transformer layers), weight (single weights, by masks). Several are applied in order: "
        "layer,structured,weight.",
        rich_help_panel=SIZE,
    ),
]
CriterionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--criterion",
        metavar="NAME",
        help="How importance is judged: "
        + "; ".join(
            f"{strategy.value}: {', '.join(item.value for item in own)}"
            for strategy, own in CRITERIA.items()
        )
        + ". A mixture: l2:0.5,taylor:0.5. For one of several strategies: weight=wanda.",
        rich_help_panel=SIZE,
    ),
]
CalibrationSamples = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Training examples that criteria look at (512); never validation data.",
        rich_help_panel=SIZE,
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option(
        "--round-to",
        metavar="N",
        min=1,
        help="Keep widths on multiples of N (16) where a layer is wide enough: runtimes work on "
        "blocks of channels, so one channel fewer can even be slower. 1: no rounding.",
        rich_help_panel=SIZE,
    ),
]
LayersToDrop = Annotated[
    str | None,
    typer.Option(
        metavar="N|25%",
        help="Residual blocks or transformer layers that GO, with --strategy layer.",
        rich_help_panel=SIZE,
    ),
]
WeightSparsity = Annotated[
    str | None,
    typer.Option(
        metavar="80%",
        help="Share of the single weights that GOES, with --strategy weight. Makes the file "
        "smaller; faster only through channels that it empties.",
        rich_help_panel=SIZE,
    ),
]
PatternOption = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        metavar="2:4|4x1",
        help="Which single weights go: unstructured; N:M keeps N of every M inputs; ROWSxCOLUMNS "
        "removes whole blocks.",
        rich_help_panel=SIZE,
    ),
]
MaskBiases = Annotated[
    bool | None,
    typer.Option(
        "--mask-biases",
        help="Biases and the parameters of norms may go too, with --strategy weight.",
        rich_help_panel=SIZE,
    ),
]
ThresholdOption = Annotated[
    str | None,
    typer.Option(
        "--threshold",
        metavar="0.3|1.5sd",
        help="Instead of a target: what scores at or below it GOES. sd: in standard deviations, "
        "layer by layer.",
        rich_help_panel=SIZE,
    ),
]
ScopeOption = Annotated[
    str | None,
    typer.Option(
        "--scope",
        metavar="NAME",
        help="What is compared: global (the whole network), local (every layer loses the same "
        "share), isomorphic (layers of the same kind are compared).",
        rich_help_panel=SIZE,
    ),
]
LayerRules = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="PATTERN=70%",
        help="Share that GOES of matching layers, whatever the rest loses; repeatable.",
        rich_help_panel=SIZE,
    ),
]
KeepPatterns = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="PATTERN,...",
        help="Layers that stay exactly as they are; repeatable.",
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

# When

PruneScheduleOption = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help="one-shot; iterative (--rounds of prune and fine-tune); gradual (while it trains).",
        rich_help_panel=WHEN,
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Rounds of prune and fine-tune (3), which share --epochs.",
        rich_help_panel=WHEN,
    ),
]
MaxDrop = Annotated[
    str | None,
    typer.Option(
        "--max-drop",
        metavar="1pp|5%",
        help="What may be lost of the validation score, in points (1pp) or as a share of it (5%): "
        "a round that loses more is taken back, and a smaller step is tried.",
        rich_help_panel=WHEN,
    ),
]
CurveOption = Annotated[
    str | None,
    typer.Option(
        "--curve",
        metavar="NAME",
        help="How the removed share rises: "
        + ", ".join(item.value for item in Curve)
        + " (the first, cubic).",
        rich_help_panel=WHEN,
    ),
]
Power = Annotated[
    float | None,
    typer.Option(metavar="F", help="Of the polynomial curve (3).", rich_help_panel=WHEN),
]
Initial = Annotated[
    str | None,
    typer.Option(
        metavar="0%", help="Share of the final removal that goes at once.", rich_help_panel=WHEN
    ),
]
Begin = Annotated[
    str | None,
    typer.Option(metavar="0%", help="When in the training it begins.", rich_help_panel=WHEN),
]
End = Annotated[
    str | None,
    typer.Option(metavar="75%", help="When in the training it ends.", rich_help_panel=WHEN),
]
Every = Annotated[
    int | None,
    typer.Option(metavar="STEPS", help="Training steps between updates.", rich_help_panel=WHEN),
]
Regrow = Annotated[
    str | None,
    typer.Option(
        metavar="30%",
        help="At each update exchange this share of the weights for pruned ones whose gradient is "
        "largest (RigL).",
        rich_help_panel=WHEN,
    ),
]
DenseEpochs = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Train without masks for the last N of the epochs: pruned weights return (DSD).",
        rich_help_panel=WHEN,
    ),
]
SparseEpochs = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="Sparse training for N epochs before anything is removed.",
        rich_help_panel=WHEN,
    ),
]
PenaltyOption = Annotated[
    str | None,
    typer.Option(
        "--penalty",
        metavar="NAME",
        help="Of sparse training: " + ", ".join(item.value for item in Penalty) + ".",
        rich_help_panel=WHEN,
    ),
]
PenaltyStrength = Annotated[
    float | None,
    typer.Option(metavar="F", help="Its weight in the loss (1e-4).", rich_help_panel=WHEN),
]

# What comes back

RunFolder = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="The folder that prune left: model.run beside model.onnx."),
]
RestoredLayers = Annotated[
    list[str],
    typer.Option(
        "--layer",
        metavar="PATTERN",
        help="Layers that get back what they lost, such as 'layer3.*'; repeatable.",
        rich_help_panel=SIZE,
    ),
]
