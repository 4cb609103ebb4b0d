"""Which parameters fine-tuning changes.

Stage: pipeline. In: the configuration and a state. Out: names of parameters.
"""

import itertools

from torch.fx import GraphModule

from prunecli.choices import TrainScope
from prunecli.errors import ConfigError
from prunecli.graph.coupling import layer_of
from prunecli.pipeline.job import Job
from prunecli.pipeline.state import State
from prunecli.removal import fits


def parameters_to_train(job: Job, state: State) -> frozenset[str] | None:
    """Names of the parameters that change; `None` for all of them, which is also what `local`
    means as long as nothing was removed.

    Raises:
        ConfigError: whatever was to be trained is gone.
    """
    scope = job.config.train.scope
    if scope == TrainScope.ALL:
        return None
    names = [name for name, _ in state.network.named_parameters(remove_duplicate=False)]
    if scope == TrainScope.LOCAL:
        touched = _touched(job.prepared.captured.network, state)
        return frozenset(name for name in names if layer_of(name) in touched) or None
    matching = frozenset(
        name
        for name in names
        if any(fits(pattern, layer_of(name)) for pattern in job.config.train.patterns)
    )
    if not matching:
        raise ConfigError(
            f"--train-scope: every layer that matches {scope!r} was removed, so nothing is left "
            "to be trained",
            "name layers that stay as well, or hold these with --keep",
        )
    return matching


def _touched(original: GraphModule, state: State) -> set[str]:
    """Layers that lost something of their own or of what they read (either changes a shape or
    leaves a mask), and those next to layers that went."""
    left = dict(state.network.named_parameters(remove_duplicate=False))
    before = _in_order(original)
    changed = {layer_of(name) for name in state.masks}
    layers = {layer_of(name) for name in left}
    for name, parameter in original.named_parameters(remove_duplicate=False):
        if name in left and left[name].shape != parameter.shape:
            changed.add(layer_of(name))
    for place, layer in enumerate(before):
        if layer not in layers:
            for others in (reversed(before[:place]), before[place:]):
                changed.update(itertools.islice((x for x in others if x in layers), 1))
    return changed


def _in_order(network: GraphModule) -> list[str]:
    """Layers in the order in which the graph reads them."""
    known = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    read = (str(node.target) for node in network.graph.nodes if node.op == "get_attr")
    return list(dict.fromkeys(layer_of(name) for name in read if name in known))
