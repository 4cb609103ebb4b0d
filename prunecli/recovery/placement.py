"""Where a captured graph runs, and in which memory layout.

Stage: recovery. In: a captured graph on the CPU. Out: the same graph on another device and in
the layout that is fast there, for the length of a block. Never changes what is computed; after
the block every argument, device and stride is as before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from prunecli import launch
from prunecli.choices import DeviceName
from prunecli.errors import ConfigError
from prunecli.graph.nodes import writes
from prunecli.tasks import Tensors

_VIEW = torch.ops.aten.view.default
_RESHAPE = torch.ops.aten.reshape.default


@dataclass(frozen=True)
class _Home:
    """Where a network was, and the arguments of its nodes as they were."""

    device: torch.device
    arguments: list[tuple[Node, Any, Any, Any]]


@dataclass(frozen=True)
class Placement:
    """What inputs need so that they fit a placed network.

    Attributes:
        device: where the parameters are.
        channels_last: whether images travel as NHWC in memory (the shape stays NCHW).
        home: how the network was before.
    """

    device: torch.device
    channels_last: bool
    home: _Home

    def fit(self, inputs: Tensors) -> Tensors:
        """`inputs`, each `(B, ...)`, in the network's memory layout."""
        return tuple(
            item.contiguous(memory_format=torch.channels_last)
            if self.channels_last and item.dim() == 4
            else item
            for item in inputs
        )


def choose_device(name: DeviceName) -> torch.device:
    """The device that `--device` means here, as accelerate takes it: of several GPUs, each process
    has its own, and `accelerate launch --cpu` leaves them alone.

    Raises:
        ConfigError: `cuda` was asked for and PyTorch sees no such device, or may not use it.
    """
    if name is DeviceName.CUDA and launch.cpu_only():
        raise ConfigError(
            "--device: accelerate was told to use the CPU, got cuda",
            "leave out --cpu of accelerate launch, or use --device auto",
        )
    if name is DeviceName.CPU or launch.cpu_only():
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if name is DeviceName.CUDA:
        raise ConfigError(
            "--device: cuda needs a GPU that PyTorch can use, got none",
            "use --device auto or --device cpu, or install PyTorch with CUDA",
        )
    return torch.device("cpu")


@contextmanager
def placed(network: GraphModule, device: torch.device) -> Iterator[Placement]:
    """Run the block with `network` on `device`; afterwards it is where and how it was.

    On the CPU, convolutional networks run with their weights channels last: measured with
    oneDNN on one core at 1.1 to 1.3 times the speed of the default layout in training and 1.4 in
    evaluation (ResNet-20 at several widths, MobileNet, DenseNet, ConvNeXt, ResNeXt), never slower
    beyond noise. The choice depends on the network alone, so that a run can be repeated bit for
    bit.
    """
    home = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    before = _arguments(network)
    channels_last = device.type == "cpu" and _may_run_channels_last(network)
    try:
        _settle(network, device, channels_last)
        yield Placement(device, channels_last, _Home(home, before))
    finally:
        _return(network, _Home(home, before))


@contextmanager
def at_home(network: GraphModule, placement: Placement) -> Iterator[None]:
    """Inside `placed`: run the block with the network where and how it was before."""
    home = placement.home
    if home.device == placement.device and not placement.channels_last:
        yield
        return
    _return(network, home)
    try:
        yield
    finally:
        _settle(network, placement.device, placement.channels_last)


def _settle(network: GraphModule, device: torch.device, channels_last: bool) -> None:
    _rewrite(network, device, channels_last)
    _move(network, device, channels_last)


def _return(network: GraphModule, home: _Home) -> None:
    for node, target, args, kwargs in home.arguments:
        node.target, node.args, node.kwargs = target, args, kwargs
    _recompile(network)
    _move(network, home.device, False)


def _nodes(network: GraphModule) -> Iterator[Node]:
    for graph_module in network.modules():
        if isinstance(graph_module, GraphModule):
            yield from graph_module.graph.nodes


def _recompile(network: GraphModule) -> None:
    for graph_module in network.modules():
        if isinstance(graph_module, GraphModule):
            graph_module.recompile()


def _arguments(network: GraphModule) -> list[tuple[Node, Any, Any, Any]]:
    return [
        (node, node.target, node.args, node.kwargs)
        for node in _nodes(network)
        if _holds_device(node) or node.target is _VIEW
    ]


def _holds_device(node: Node) -> bool:
    found: list[bool] = []
    for part in (node.args, node.kwargs):
        map_aggregate(part, lambda item: found.append(_is_device(item)))
    return any(found)


def _is_device(item: Any) -> bool:
    return isinstance(item, torch.device)


def _may_run_channels_last(network: GraphModule) -> bool:
    """Convolution weights there, and no view whose aliasing the result depends on."""
    if not any(parameter.dim() == 4 for parameter in network.parameters()):
        return False
    return not any(
        node.target is torch.ops.aten.as_strided.default
        or (node.target is _VIEW and any(writes(user) for user in node.users))
        for node in _nodes(network)
    )


def _rewrite(network: GraphModule, device: torch.device, channels_last: bool) -> None:
    """Constants created inside the graph name their device; views demand the default layout."""
    for node in _nodes(network):
        if channels_last and node.target is _VIEW:
            node.target = _RESHAPE
        if _holds_device(node):
            node.args = map_aggregate(node.args, lambda i: device if _is_device(i) else i)
            node.kwargs = map_aggregate(node.kwargs, lambda i: device if _is_device(i) else i)
    _recompile(network)


def _move(network: GraphModule, device: torch.device, channels_last: bool) -> None:
    network.to(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for parameter in network.parameters():
        if parameter.dim() == 4:
            # `contiguous` would leave a weight of one input channel as it is: its strides fit both
            # layouts, convolutions take it for the default one, and copy what they read and make.
            parameter.data = parameter.data.to(memory_format=layout)
    # Constants that the model's code made (torch.tensor([...])) are plain attributes.
    for graph_module in network.modules():
        for name, value in vars(graph_module).items():
            if isinstance(value, Tensor):
                setattr(graph_module, name, value.to(device))
