"""Does the data set fit the network's output.

Stage: data. In: a data set and an output shape. Out: nothing, or an error. Never runs a network.
"""

from prunecli.data.records import DataSet, Task, in_numbers
from prunecli.data.source import counted
from prunecli.errors import DataError


def check_outputs(data: DataSet, output_shape: tuple[int, ...]) -> None:
    """Match classes or target numbers with outputs.

    Where the source names its classes their number is certain and must be that of the outputs;
    bare labels only must not go beyond, since the largest may just not occur.

    Args:
        output_shape: of the network's output for a batch, batch first.

    Raises:
        DataError: they do not match.
    """
    outputs = output_shape[1:]
    if data.task is Task.REGRESSION:
        _check_targets(data, outputs)
        return
    if len(outputs) != 1:
        raise DataError(
            "data: one label for each example needs outputs (batch, classes), got "
            f"({', '.join(['batch', *map(str, outputs)])})",
            "leave out --data to prune without training",
        )
    classes = len(data.classes)
    if classes == outputs[0] or (not data.named and classes < outputs[0]):
        return
    detail = "" if data.named else f" (the largest label is {classes - 1})"
    raise DataError(
        f"data: classes must match the model's outputs, got {counted(classes, 'class')} in the "
        f"data, {counted(outputs[0], 'output')}{detail}",
        "labels count from 0; check that --data and the checkpoint belong together",
    )


def _check_targets(data: DataSet, outputs: tuple[int, ...]) -> None:
    targets = tuple(data.train.targets.shape[1:])
    if outputs == targets or (targets == () and outputs == (1,)):
        return
    raise DataError(
        f"data: regression targets must match the model's outputs, got "
        f"{in_numbers(targets or (1,))} in the data, {in_numbers(outputs or (1,))} from the model",
        "for classes, write the labels as integers; check that --data and the checkpoint "
        "belong together",
    )
