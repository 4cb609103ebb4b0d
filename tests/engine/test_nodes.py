"""Arguments by name, and what shares memory with what, read off a graph made by hand."""

from typing import Any

import pytest
import torch
from torch import fx

from prunecli.graph.nodes import (
    argument,
    argument_names,
    arguments,
    put_argument,
    shown,
    writes,
)

aten = torch.ops.aten


def call(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call on inputs x and y of a new graph; "x" and "y" stand for them."""
    graph = fx.Graph()
    inputs = {name: graph.placeholder(name) for name in ("x", "y")}
    given = fx.node.map_aggregate((args, kwargs), lambda item: inputs.get(item, item))
    return graph.call_function(target, *given)


def test_arguments_by_name_with_their_defaults() -> None:
    node = call(aten.rrelu.default, "x", 0.1, training=True)
    found = arguments(node)
    assert tuple(found) == argument_names(node)
    assert found.pop("self").name == "x"
    assert found == {"lower": 0.1, "upper": pytest.approx(1 / 3), "training": True} | {
        "generator": None
    }
    assert argument(node, "lower") == 0.1
    assert argument(node, "dim") is None
    assert arguments(call(len, "x")) == {}


def test_arguments_are_put_where_they_stand() -> None:
    node = call(aten.rrelu.default, "x", 0.1)
    put_argument(node, "lower", 0.2)
    assert node.args[1] == 0.2
    assert dict(node.kwargs) == {}
    put_argument(node, "training", True)
    assert dict(node.kwargs) == {"training": True}
    put_argument(node, "training", False)
    assert dict(node.kwargs) == {}, "the default"


@pytest.mark.parametrize(
    ("target", "args", "written", "shows"),
    [
        (aten.relu.default, ("x",), False, None),
        (aten.relu_.default, ("x",), True, "x"),
        (aten.add_.Tensor, ("x", "y"), True, "x"),
        (aten.view.default, ("x", [1]), False, "x"),
        (aten.expand_as.default, ("x", "y"), False, "x"),
        (aten.chunk.default, ("x", 2), False, "x"),
        (aten.dropout.default, ("x", 0.5, False), False, "x"),
        (aten.cat.default, (["x", "y"],), False, None),
        (len, ("x",), False, None),
    ],
)
def test_who_writes_and_whose_memory_is_shown(
    target: Any, args: tuple[Any, ...], written: bool, shows: str | None
) -> None:
    node = call(target, *args)
    source = shown(node)
    assert (writes(node), source and source.name) == (written, shows)
