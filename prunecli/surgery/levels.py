"""Weights as matrices of units, and layers that give constants: filters of which every weight is
masked.

Stage: surgery. In: a node that is about to run, and the scene. Out: units for which it gives a
constant; noted in the scene: its weights and what it reads.
"""

import numpy as np
from torch import Tensor, fx

from prunecli.graph.coupling import STAYS, UnitArray
from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, operator_name
from prunecli.graph.reading import Kind, Read
from prunecli.graph.stepping import Stepper
from prunecli.surgery.scene import (
    NONE,
    Constants,
    Scene,
    Weight,
    operands_of,
    reads_of,
    units_along,
)

_ADDING = frozenset({"aten.addmm", "aten.baddbmm", "aten.addmv"})


def constant_rows(scene: Scene, node: fx.Node, stepper: Stepper) -> UnitArray:
    """Units that a layer gives constants for: every weight that makes them is zero, or meets
    what is zero (for a linear layer: what is constant)."""
    reads = [read for read in reads_of(node) if read.operand.name in scene.still]
    for read in reads:
        tensor = stepper.map_nodes_to_values(read.operand, node)
        scene.weights.setdefault(node.name, []).append(_weight(scene, read, tensor))
    added = added_to(node)
    if len(reads) != 1 or reads[0].kind is Kind.RECURRENT:
        return NONE
    if added is not None and added.name not in scene.still:
        return NONE
    read, weight = reads[0], scene.weights[node.name][0]
    others = [item for item in operands_of(scene, node) if item not in (read.operand, added)]
    if len(others) != 1:
        return NONE
    quiet = scene.units(others[0])
    meets = np.isin(weight.columns, quiet.steady if read.kind is Kind.LINEAR else quiet.zero)
    _note_level(scene, node, read, others[0], stepper)
    found: UnitArray = np.setdiff1d(np.unique(weight.rows), weight.rows[weight.busy_rows(~meets)])
    found = found[found != STAYS]
    scene.emptied.update(found.tolist())
    return found


def added_to(node: fx.Node) -> fx.Node | None:
    """The bias of a layer, or what a product is added to."""
    found = argument(node, "self" if operator_name(node) in _ADDING else "bias")
    return found if isinstance(found, fx.Node) else None


def _weight(scene: Scene, read: Read, tensor: Tensor) -> Weight:
    """Rows are outputs, columns inputs, block by block; units are `STAYS` where the labels do not
    say which index is which."""
    value = scene.flow.values[read.operand.name]
    assert isinstance(value, Value)
    assert read.input_axis is not None
    if read.groups == 1:
        moved = tensor.movedim(read.input_axis, -1)[None]
        if read.output_axis is not None:
            place = read.output_axis + (read.output_axis < read.input_axis)
            moved = moved.movedim(place, 1)
        else:
            moved = moved[None]
        rows, columns = (
            units_along(scene, read.operand, axis) for axis in (read.output_axis, read.input_axis)
        )
    else:
        # Axis 0 runs over all groups, axis 1 starts anew in each.
        moved = tensor.reshape(read.groups, -1, *tensor.shape[1:])
        restarting = scene.flow.notes.block_axes.get((value.parameter, 1))
        flat = units_along(scene, read.operand, 0)
        within = None if restarting is None else scene.coupling.units(restarting.labels)
        rows, columns = flat, within
        if read.kind is Kind.TRANSPOSED:
            moved, rows, columns = moved.transpose(1, 2), within, flat
        moved = moved.movedim(2, -1)
    busy = moved != 0
    busy = busy.flatten(2, -2).any(2) if busy.dim() > 3 else busy
    return Weight(busy.numpy(), *_filled(tuple(busy.shape), rows, columns))


def _filled(
    shape: tuple[int, ...], rows: UnitArray | None, columns: UnitArray | None
) -> tuple[UnitArray, UnitArray]:
    extents = ((shape[0], shape[1]), (shape[0], shape[2]))
    first, second = (
        np.full(extent, STAYS, dtype=np.int64)
        if units is None or units.size != extent[0] * extent[1]
        else units.reshape(extent)
        for units, extent in zip((rows, columns), extents, strict=True)
    )
    return first, second


def _note_level(scene: Scene, node: fx.Node, read: Read, data: fx.Node, stepper: Stepper) -> None:
    """What a linear layer or unpadded convolution reads, where it is one number per position."""
    units = scene.units(data).steady
    if read.operand.op != "get_attr" or read.groups > 1 or not units.size or not _unpadded(node):
        return
    value = scene.flow.values[data.name]
    assert isinstance(value, Value)
    kernel = len(read.operand.meta["val"].shape) - 2
    axis = len(value.shape) - 1 - kernel
    labels = value.field_at(axis)
    if labels is None or labels.numel() != value.shape[axis]:
        return
    tensor = stepper.map_nodes_to_values(data, node).movedim(axis, 0).flatten(1)
    level = tensor[:, 0]
    even = (tensor == level[:, None]).all(1).numpy()
    along = scene.coupling.units(labels).reshape(-1)
    good = np.setdiff1d(units, along[~even])
    scene.levels[node.name] = Constants(good, along, level.clone())


def _unpadded(node: fx.Node) -> bool:
    name = operator_name(node)
    if name == "aten.linear":
        return True
    if name not in ("aten.conv1d", "aten.conv2d", "aten.conv3d"):
        return False
    padding = argument(node, "padding")
    return padding == "valid" if isinstance(padding, str) else not any(padding or [0])
