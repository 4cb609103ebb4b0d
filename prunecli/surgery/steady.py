"""Steady units: parts of values that are the same whatever goes into the network.

Stage: surgery. In: a masked network and its analysis. Out: per value, the units that are steady,
and those that are zero. A filter whose weights are all masked gives a constant, which batch norm
and activation turn into another one. That it cannot depend on the input follows from the graph;
what it is, is read off one run. Changes nothing.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.graph.capture import Captured
from prunecli.graph.coupling import STAYS, Coupling, UnitArray
from prunecli.graph.fields import Value
from prunecli.graph.nodes import argument, operator_name, writes
from prunecli.graph.rules.contraction import attention, einsum, matmul
from prunecli.graph.rules.elementwise import elementwise, gated, prelu
from prunecli.graph.rules.movement import (
    channel_shuffle,
    concatenate,
    created,
    cut,
    embedding,
    expand,
    move,
    move_as,
    move_pinned,
    pad,
    pixel_shuffle,
    roll,
    stack,
    strided_slice,
    unchanged,
)
from prunecli.graph.rules.normalization import channelwise
from prunecli.graph.rules.reduction import norm, sampled, spatial, total
from prunecli.graph.rules.table import RULES
from prunecli.graph.stepping import Stepper, cast
from prunecli.graph.walk import Flow, Result, sharing_memory
from prunecli.surgery.levels import constant_rows
from prunecli.surgery.scene import NONE, Known, Scene, Units, operands_of, summed

POINTWISE = (elementwise, unchanged, prelu, channelwise, gated)
MOVING = (
    move, cut, move_as, move_pinned, strided_slice, channel_shuffle, pixel_shuffle, roll,
    concatenate, stack, expand, pad, created,
)  # fmt: skip
KEEPING_ZERO = (spatial, total, norm, sampled, embedding)
PRODUCTS = (matmul, einsum)

_DRAWING = frozenset({"aten.rand_like", "aten.randn_like", "aten.bernoulli", "aten.empty_like"})


def find_steady(captured: Captured, flow: Flow, coupling: Coupling) -> Scene:
    """Run the network once, in float64, on its example inputs and note what is steady and zero."""
    scene = Scene(flow, coupling)
    stepper = Stepper(captured.network, torch.float64)
    inputs = iter([cast(item, torch.float64).clone() for item in captured.inputs])
    with torch.no_grad():
        for node in captured.network.graph.nodes:
            rows = constant_rows(scene, node, stepper) if node.op == "call_function" else NONE
            found = stepper.run_one(node, inputs)
            if node.op == "get_attr":
                found = stepper.map_nodes_to_values(node, node)
                scene.still.add(node.name)
            if node.op in ("call_function", "get_attr"):
                scene.known[node.name] = _look(scene, node, found, rows)
                _note_still(scene, node)
                _note_written(scene, node)
    return scene


def _look(scene: Scene, node: fx.Node, found: Any, rows: UnitArray) -> Known:
    """Units of the node's value(s), given what it computed."""
    value = scene.flow.values.get(node.name)
    if operator_name(node) == "getitem":
        origin, place = node.args
        own = scene.known.get(str(origin))
        return own[place] if isinstance(own, tuple) and isinstance(place, int) else Units()
    if isinstance(value, tuple):
        return tuple(
            _units(scene, node, item, tensor, rows)
            for item, tensor in zip(value, found, strict=True)
        )
    return _units(scene, node, value, found, rows)


def _units(scene: Scene, node: fx.Node, value: Result, tensor: Any, rows: UnitArray) -> Units:
    if not isinstance(value, Value) or not isinstance(tensor, Tensor) or not value.fields:
        return Units()
    every, counts = np.unique(
        np.concatenate([np.unique(scene.coupling.units(item)) for item in value.fields]),
        return_counts=True,
    )
    counts, every = counts[every != STAYS], every[every != STAYS]
    if node.op == "get_attr":
        steady = every
    else:
        steady = np.union1d(_steady(scene, node, every), np.intersect1d(rows, every))
        # Of a unit on two axes, one says nothing about the other.
        steady = np.intersect1d(steady, every[counts == 1])
    zero = _zero(scene.coupling, value, tensor, steady)
    return Units(every, steady, zero, every[counts > 1])


def _zero(coupling: Coupling, value: Value, tensor: Tensor, among: UnitArray) -> UnitArray:
    """Those of `among` at which nothing of the tensor differs from zero."""
    if not among.size:
        return NONE
    for item in value.fields:
        flat = [axis for axis, extent in enumerate(item.shape) if extent == 1]
        other = (tensor != 0).any(dim=flat, keepdim=True) if flat else tensor != 0
        units = coupling.units(item)
        among = np.setdiff1d(among, units[other.numpy()])
    return among


def _steady(scene: Scene, node: fx.Node, every: UnitArray) -> UnitArray:
    """Which of the result's units are steady because those of the operands are."""
    if node.name in scene.flow.notes.normalised or _draws(node):
        return NONE
    rule: Any = RULES.get(operator_name(node))
    if rule in POINTWISE:
        return _pointwise(scene, node, every)
    if rule in MOVING:
        return _among(scene, operands_of(scene, node), every)
    if rule in KEEPING_ZERO:
        operands = operands_of(scene, node)[:1]
        return np.intersect1d(every, _zeros(scene, operands))
    if rule in PRODUCTS or rule is attention:
        factors = [argument(node, "value")] if rule is attention else operands_of(scene, node)
        return np.setdiff1d(np.intersect1d(every, _zeros(scene, factors)), summed(scene, node))
    return NONE


def _zeros(scene: Scene, nodes: list[fx.Node]) -> UnitArray:
    """Units that are zero in any of the nodes."""
    found = [scene.units(item).zero for item in nodes]
    return np.unique(np.concatenate(found)) if found else NONE


def _among(scene: Scene, operands: list[fx.Node], every: UnitArray) -> UnitArray:
    """Units that are steady in every operand that has them."""
    for item in operands:
        own = scene.units(item)
        every = np.setdiff1d(every, np.setdiff1d(own.all, own.steady))
    return every


def _pointwise(scene: Scene, node: fx.Node, every: UnitArray) -> UnitArray:
    """Steady in every operand; what does not have a unit must not depend on the input at all.
    In a product, zero is enough."""
    found = every
    for item in node.all_input_nodes:
        if item.name not in scene.still:
            found = np.intersect1d(found, scene.units(item).steady)
    if operator_name(node) in ("aten.mul", "aten.multiply"):
        zero = np.intersect1d(every, _zeros(scene, operands_of(scene, node)))
        found = np.union1d(found, zero)
    return found


def _draws(node: fx.Node) -> bool:
    """Whether the operator draws random numbers, or returns whatever the memory held."""
    drawing = any(argument(node, name) is True for name in ("train", "training"))
    return drawing or operator_name(node) in _DRAWING


def _note_still(scene: Scene, node: fx.Node) -> None:
    rule: Any = RULES.get(operator_name(node))
    known = rule in POINTWISE or rule in MOVING or operator_name(node) == "getitem"
    inputs = node.all_input_nodes
    if known and not _draws(node) and all(item.name in scene.still for item in inputs):
        scene.still.add(node.name)


def _note_written(scene: Scene, node: fx.Node) -> None:
    """What an operator writes shows in all that shares its memory."""
    if not writes(node):
        return
    own = scene.units(node)
    for item in sharing_memory(node):
        other = scene.known.get(item.name)
        if item is node or other is None:
            continue
        scene.still.discard(item.name)
        if isinstance(other, Units):
            steady, zero = (
                np.intersect1d(one, two)
                for one, two in ((other.steady, own.steady), (other.zero, own.zero))
            )
            scene.known[item.name] = Units(other.all, steady, zero, other.twice)
        else:
            scene.known[item.name] = tuple(Units(part.all, twice=part.twice) for part in other)
