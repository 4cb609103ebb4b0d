"""Statistics of batch norms, measured anew.

Stage: recovery. In: a network in evaluation mode whose layers have lost inputs, and unlabelled
examples. Out: the same network with running means and variances of what now goes in, in place.
Never changes a weight.
"""

from collections import Counter

import torch
from torch import Tensor, fx

from prunecli.graph.nodes import argument, operator_name
from prunecli.graph.stepping import Stepper
from prunecli.progress import Reporter
from prunecli.tasks import Tensors


def reestimate(network: fx.GraphModule, examples: Tensors, reporter: Reporter) -> int:
    """Give every batch norm the statistics of its input; those of later ones see the effect.

    Norms that share statistics (a module that is called twice) keep them: none of the inputs alone
    is right for both.

    Args:
        examples: prepared inputs, each (N, ...), no labels.

    Returns:
        How many norms were changed.
    """
    norms = [node for node in network.graph.nodes if _has_statistics(node)]
    uses = Counter(_buffer_names(node) for node in norms)
    stepper, done = Stepper(network, torch.float32), 0
    inputs = iter([item.clone() for item in examples])
    with torch.no_grad(), reporter.step("measuring batch norms", len(norms)) as step:
        for node in network.graph.nodes:
            if node in norms and uses[_buffer_names(node)] == 1:
                _measure(network, node, stepper.env[argument(node, "input")])
                done += 1
                step.update(done, node.name)
            stepper.run_one(node, inputs)
    return done


def _has_statistics(node: fx.Node) -> bool:
    if operator_name(node) != "aten.batch_norm":
        return False
    return isinstance(argument(node, "running_mean"), fx.Node) and not argument(node, "training")


def _buffer_names(node: fx.Node) -> tuple[str, str]:
    mean, variance = (argument(node, name) for name in ("running_mean", "running_var"))
    return str(mean.target), str(variance.target)


def _measure(network: fx.GraphModule, node: fx.Node, source: Tensor) -> None:
    """`source`: (N, C, ...). The variance is that of a sample, as in training."""
    mean, variance = (network.get_buffer(name) for name in _buffer_names(node))
    values = source.double().transpose(0, 1).flatten(1)
    if values.shape[1] > 1:
        mean.copy_(values.mean(1))
        variance.copy_(values.var(1))
