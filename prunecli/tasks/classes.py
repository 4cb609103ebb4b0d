"""Tasks whose targets are classes: of examples, of tokens, of pixels.

Stage: tasks. In: nothing. Out: one `Task` for each. They differ in how outputs and targets become
rows (see `rows`), and in what is counted.

Shapes. B: batch, C: classes, T: tokens, H, W: height and width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from prunecli.choices import TaskName
from prunecli.errors import DataError, ModelError
from prunecli.metric import Metric
from prunecli.tasks.gauges import (
    Gauge,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from prunecli.tasks.rows import (
    RowMeter,
    Rows,
    Tally,
    Uncertainty,
    constant_perplexity,
    cross_entropy,
    divergence,
    divergence_where,
    most_common,
)
from prunecli.tasks.task import IGNORED, UNMARKED, Fit, Labels, Task, Tensors, rows_that_count

ACCURACY = Metric("accuracy", "accuracy", True, True, "top-1", "chance is")
TOP_5 = Metric("top5", "top-5", True, True)
MACRO_F1 = Metric("macro_f1", "macro F1", True, True)
TOKEN_ACCURACY = Metric("accuracy", "accuracy", True, True, "tokens with a label", "chance is")
PIXEL_ACCURACY = Metric("pixel_accuracy", "pixel accuracy", True, True)
MEAN_IOU = Metric("miou", "mIoU", True, True, "mean over the classes")
PERPLEXITY = Metric("perplexity", "perplexity", False, False)

SHARES = frozenset((ACCURACY, TOP_5, TOKEN_ACCURACY, PIXEL_ACCURACY))

DISTILLED = 0.9
"""Share of the loss that comes from the original, for all tasks over classes."""


@dataclass(frozen=True)
class _Form:
    """How outputs and targets of one task look.

    Attributes:
        outputs: axes of the outputs, in words.
        rank: how many they are.
        targets: axes of one example's targets.
        axis: of the classes.
    """

    name: TaskName
    outputs: str
    rank: int
    targets: int
    axis: int

    def only(self, outputs: Tensors) -> Tensor:
        """The first output.

        Raises:
            ModelError: it is not of this form.
        """
        found = outputs[0]
        if found.dim() != self.rank:
            raise ModelError(
                f"network: {self.name} needs outputs of shape ({self.outputs}), "
                f"got {tuple(found.shape)}",
                "check that --data and --task belong to this network",
            )
        return found


_EXAMPLES = _Form(TaskName.CLASSIFICATION, "batch, classes", 2, 0, 1)
_TOKENS = _Form(TaskName.TOKEN_CLASSIFICATION, "batch, tokens, classes", 3, 1, 2)
_WORDS = _Form(TaskName.LANGUAGE_MODELLING, "batch, tokens, vocabulary", 3, 1, 2)
_MASKED = _Form(TaskName.MASKED_LANGUAGE_MODELLING, "batch, tokens, vocabulary", 3, 1, 2)
_PIXELS = _Form(TaskName.SEGMENTATION, "batch, classes, height, width", 4, 2, 1)


def _examples(outputs: Tensors, targets: Tensors) -> tuple[Tensor, Tensor]:
    """(B, C) and (B,), as they are."""
    return _EXAMPLES.only(outputs), targets[0]


def _tokens(form: _Form, outputs: Tensors, targets: Tensors) -> tuple[Tensor, Tensor]:
    """(B, T, C) and (B, T): every token is a row.

    Raises:
        ModelError: not as many outputs as targets.
    """
    scores, labels = form.only(outputs), targets[0]
    if scores.shape[:2] != labels.shape:
        raise ModelError(
            f"network: one output for each token of {tuple(labels.shape)} is needed, "
            f"got {tuple(scores.shape)}",
            "check that --data and --task belong to this network",
        )
    return scores.flatten(0, 1), labels.flatten()


def _next_tokens(outputs: Tensors, targets: Tensors) -> tuple[Tensor, Tensor]:
    """What stands at a token is to say which comes next; the last one says nothing."""
    scores, labels = _WORDS.only(outputs), targets[0]
    return _tokens(_WORDS, (scores[:, :-1],), (labels[:, 1:],))


def _pixels(outputs: Tensors, targets: Tensors) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) and (B, H, W): every pixel is a row.

    Coarser outputs are brought to the masks' size first, as their authors do (Segformer,
    arXiv:2105.15203). One channel says how much more likely class 1 is than class 0.
    """
    scores, masks = _PIXELS.only(outputs), targets[0].long()
    if scores.shape[2:] != masks.shape[1:]:
        scores = F.interpolate(scores, masks.shape[1:], mode="bilinear", align_corners=False)
    if scores.shape[1] == 1:
        scores = torch.cat((torch.zeros_like(scores), scores), 1)
    labels = masks.masked_fill(masks == UNMARKED, IGNORED)
    return scores.movedim(1, -1).flatten(0, 2), labels.flatten()


def _loss(rows: Rows, outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
    return cross_entropy(*rows(outputs, targets), smoothing)


def _distance(
    rows: Rows, outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float
) -> Tensor:
    (said, labels), (meant, _) = rows(outputs, targets), rows(wanted, targets)
    return divergence_where(labels != IGNORED, said, meant, temperature)


def _loss_of_examples(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
    """Every example has a label (Szegedy et al. 2016, arXiv:1512.00567, for smoothed ones)."""
    return F.cross_entropy(*_examples(outputs, targets), label_smoothing=smoothing)


def _distance_of_examples(
    outputs: Tensors, wanted: Tensors, targets: Tensors, temperature: float
) -> Tensor:
    return divergence(outputs[0], wanted[0], temperature)


def _accuracy(classes: int) -> Gauge:
    return MulticlassAccuracy(classes, average="micro", validate_args=False)


def _macro_f1(classes: int) -> Gauge:
    return MulticlassF1Score(classes, average="macro", validate_args=False)


def _gauges_of_examples(classes: int) -> Mapping[Metric, Tally]:
    top_5 = {}
    if classes > 5:
        top_5[TOP_5] = MulticlassAccuracy(classes, top_k=5, average="micro", validate_args=False)
    return {ACCURACY: _accuracy(classes), **top_5, MACRO_F1: _macro_f1(classes)}


def _gauges_of_tokens(classes: int) -> Mapping[Metric, Tally]:
    return {TOKEN_ACCURACY: _accuracy(classes), MACRO_F1: _macro_f1(classes)}


def _gauges_of_pixels(classes: int) -> Mapping[Metric, Tally]:
    union = MulticlassJaccardIndex(classes, average="macro", validate_args=False)
    return {MEAN_IOU: union, PIXEL_ACCURACY: _accuracy(classes)}


def _gauges_of_words(classes: int) -> Mapping[Metric, Tally]:
    return {PERPLEXITY: Uncertainty()}


def _check(form: _Form, fit: Fit) -> None:
    """Match classes with outputs.

    Where the source names its classes their number is certain and must be that of the outputs;
    bare labels only must not go beyond, since the largest may just not occur.

    Raises:
        DataError: they do not match.
    """
    shape, labels = fit.outputs[0], fit.labels[0]
    if len(shape) != form.rank:
        outside = ", ".join(["batch", *map(str, shape[1:])])
        said = "one label for each example" if form is _EXAMPLES else f"--task {form.name}"
        raise DataError(
            f"data: {said} needs outputs ({form.outputs}), got ({outside})",
            "leave out --data to prune without training, or say what the network does: --task",
        )
    if len(fit.targets[0]) != form.targets:
        raise DataError(
            f"data: --task {form.name} needs targets with {form.targets} axes for each example, "
            f"got {fit.targets[0]}",
            "check --data and --task",
        )
    found = shape[form.axis]
    if form is _PIXELS and found > UNMARKED:
        raise DataError(
            f"data: --task segmentation takes at most {UNMARKED} classes, since pixels of "
            f"{UNMARKED} do not count, got {found} from the model",
            "write a task of your own for it: --task FILE.py:Task",
        )
    # One channel stands for two classes.
    _check_classes(labels, 2 if form is _PIXELS and found == 1 else found)


def _check_classes(labels: Labels, outputs: int) -> None:
    classes = len(labels.classes)
    if classes == outputs or (not labels.named and classes < outputs):
        return
    detail = "" if labels.named else f" (the largest label is {classes - 1})"
    raise DataError(
        f"data: classes must match the model's outputs, got {classes:,} "
        f"{'class' if classes == 1 else 'classes'} in the data, {outputs:,} "
        f"{'output' if outputs == 1 else 'outputs'}{detail}",
        "labels count from 0; check that --data and the checkpoint belong together",
    )


def _task(
    form: _Form,
    rows: Rows,
    metric: Metric,
    gauges: Callable[[int], Mapping[Metric, Tally]],
    chance: Callable[[Tensor], float] | None,
    **special: Any,
) -> Task:
    known = {
        "loss": partial(_loss, rows),
        "distance": partial(_distance, rows),
        "meter": lambda: RowMeter(rows, gauges, chance, SHARES),
        **special,
    }
    return Task(
        form.name, metric, check=partial(_check, form), share=DISTILLED, smooths=True, **known
    )


CLASSIFICATION = _task(
    _EXAMPLES,
    _examples,
    ACCURACY,
    _gauges_of_examples,
    most_common,
    loss=_loss_of_examples,
    distance=_distance_of_examples,
    mixes=True,
)
TOKENS = _task(
    _TOKENS,
    partial(_tokens, _TOKENS),
    TOKEN_ACCURACY,
    _gauges_of_tokens,
    most_common,
    in_place=True,
)
PIXELS = _task(_PIXELS, _pixels, MEAN_IOU, _gauges_of_pixels, None, in_place=True)
NEXT_TOKENS = _task(
    _WORDS,
    _next_tokens,
    PERPLEXITY,
    _gauges_of_words,
    constant_perplexity,
    in_place=True,
    weight=lambda targets: rows_that_count((targets[0][:, 1:],)),
)
MASKED_TOKENS = _task(
    _MASKED,
    partial(_tokens, _MASKED),
    PERPLEXITY,
    _gauges_of_words,
    constant_perplexity,
    in_place=True,
)
