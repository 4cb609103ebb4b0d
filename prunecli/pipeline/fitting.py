"""Data and network together: which array is which input, and does everything fit.

Stage: pipeline. In: a data set and a captured network. Out: the data set in the network's order
and types, bound to its outputs, or an error. Trains nothing.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from prunecli.config import InputSpec, TaskConfig
from prunecli.data import DataSet, Split
from prunecli.data.contents import Words
from prunecli.data.source import words_of
from prunecli.errors import DataError
from prunecli.graph.capture import Captured, output_shapes
from prunecli.graph.inputs import EXAMPLE_BATCH, Example, of_shape, positional
from prunecli.pipeline.answering import answered
from prunecli.tasks import Fit, Task, bound, in_numbers


def spelt(name: str) -> str:
    """A name as it is compared: `batch.image` and `batch_image` are the same."""
    return "_".join(words_of(name))


def examples_from(data: DataSet, parameters: tuple[str, ...]) -> Iterator[Example]:
    """What to try the network with, where only the data says what it takes.

    Args:
        parameters: of the network's `forward`.
    """
    stored = data.train.inputs
    prepared = data.prepare(tuple(item[:1] for item in stored))
    if len(stored) == 1:
        yield from of_shape((1, *prepared[0].shape[1:]))
    if all(item.is_floating_point() for item in stored):
        kinds = [prepared] if len(stored) > 1 else []
    else:
        # Whole numbers may be indices, or quantities: as indices first.
        whole = tuple(
            own if old.is_floating_point() or rule.image else old.to(torch.int64)
            for own, old, rule in zip(prepared, stored, data.preprocess, strict=True)
        )
        kinds = [whole, prepared]
    named = set(data.names) <= set(parameters)
    for tensors in kinds:
        rows = torch.zeros(EXAMPLE_BATCH, dtype=torch.int64)
        example = positional([item[:1][rows] for item in tensors])
        yield replace(example, names=data.names if named else ())


def specs_of(data: DataSet, specs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
    """Of the inputs that a checkpoint names, those that the data has; none where it has others."""
    own = {spelt(name) for name in data.names}
    found = tuple(spec for spec in specs if spelt(spec.name) in own)
    return found if found and len(found) == len(own) else ()


def fitted(data: DataSet, captured: Captured, config: TaskConfig | None) -> DataSet:
    """The data set as the network takes it.

    Raises:
        ConfigError: `--task` names an output that does not exist.
        DataError: inputs or targets do not fit the network, or its outputs the task.
    """
    names = [node.name for node in captured.network.graph.find_nodes(op="placeholder")]
    data = _in_order(data, names)
    data = replace(
        data,
        preprocess=tuple(
            replace(own, dtype=item.dtype)
            for own, item in zip(data.preprocess, captured.inputs, strict=True)
        ),
        names=tuple(names) if len(names) > 1 else (),
        contents=tuple(
            own.within(domain.limit) if isinstance(own, Words) else own
            for own, domain in zip(data.contents, captured.domains, strict=False)
        ),
    )
    for place, name in enumerate(names):
        _check_input(data, captured, place, name)
    task = bound(data.task, config, captured.outputs)
    targets = tuple(tuple(item.shape[1:]) for item in data.train.targets)
    task.check(Fit(output_shapes(captured), data.labels, targets))
    data = replace(data, task=task)
    return data if task.labelled else answered(data, captured)


def _in_order(data: DataSet, names: list[str]) -> DataSet:
    """Inputs in the network's order."""
    own = list(map(spelt, data.names))
    count = len(data.train.inputs)
    if count == len(names) == 1:
        return data
    missing = [name for name in names if spelt(name) not in own]
    if missing or count != len(names):
        got = ", ".join(data.names) or "one input without a name"
        raise DataError(
            f"data: the network takes {', '.join(names)}, got {got}",
            "name the arrays after the network's inputs, or say with --input which there are",
        )
    places = [own.index(spelt(name)) for name in names]

    def of(split: Split) -> Split:
        return replace(split, inputs=tuple(split.inputs[place] for place in places))

    return replace(
        data,
        train=of(data.train),
        choose=of(data.choose),
        validation=of(data.validation),
        preprocess=tuple(data.preprocess[place] for place in places),
        contents=tuple(data.contents[place] for place in places if data.contents),
    )


def _check_input(data: DataSet, captured: Captured, place: int, name: str) -> None:
    """Shape, and whether whole numbers are whole, and within the table they are looked up in."""
    like, axes, rule = captured.inputs[place], captured.axes[place], data.preprocess[place]
    said = f"data: {name}" if len(captured.inputs) > 1 else "data"
    splits = {
        split.name: split.inputs[place] for split in (data.train, data.choose, data.validation)
    }
    own = tuple(rule(splits["train"][:1]).shape[1:])
    fits = len(own) == like.dim() - 1 and all(
        axis is not None or extent == wanted
        for axis, extent, wanted in zip(axes[1:], own, like.shape[1:], strict=True)
    )
    if not like.dim() or not fits:
        raise DataError(
            f"{said}: examples must have the model's input shape "
            f"{in_numbers(tuple(like.shape[1:]))}, got {in_numbers(own)}",
            "check --data, or give the input's shape with --input-shape or --input",
        )
    if like.is_floating_point():
        return
    if rule.mean or rule.std:
        raise DataError(
            f"--mean, --std: {name} takes whole numbers, which are used as they are stored",
            "leave them out",
        )
    for split, values in splits.items():
        _check_whole(f"{said} ({split})", values, captured.domains[place].limit)


def _check_whole(said: str, values: Tensor, limit: int) -> None:
    if values.is_floating_point() and not bool((values == values.round()).all()):
        raise DataError(
            f"{said}: the network takes whole numbers, got others", "check --data and --input"
        )
    low, high = int(values.min()), int(values.max())
    if limit and (low < 0 or high >= limit):
        raise DataError(
            f"{said}: indices must lie in 0 to {limit - 1}, got {low if low < 0 else high}",
            "use the vocabulary that the network was trained with",
        )


def note_outputs(task: Task, captured: Captured) -> str | None:
    """What the report says where not all outputs are trained."""
    read = range(len(captured.outputs)) if task.outputs is None else task.outputs
    if len(captured.outputs) == 1 or len(read) in (0, len(captured.outputs)):
        return None
    trained = [captured.outputs[place] for place in read]
    return (
        f"of {len(captured.outputs)} outputs, {', '.join(trained)} "
        f"{'is' if len(trained) == 1 else 'are'} trained and scored with --data; all are exported"
    )
