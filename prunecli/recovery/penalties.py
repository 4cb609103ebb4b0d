"""Sparse training: a penalty draws weights to zero before anything is removed.

Stage: recovery. In: a penalty, its strength and what may go. Out: a companion that adds the
penalty to the loss. Never removes anything.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from prunecli.choices import Penalty
from prunecli.errors import ConfigError
from prunecli.graph.coupling import STAYS, Coupling
from prunecli.graph.nodes import argument, attribute, operator_name
from prunecli.recovery.companion import Memory, Setting, State
from prunecli.recovery.unit_norms import unit_squares

NORMS = frozenset(
    f"aten.{name}"
    for name in ("batch_norm", "instance_norm", "layer_norm", "group_norm", "rms_norm")
)

Term = Callable[[], Tensor]
"""Computes a penalty for the weights as they are, as a scalar that can be differentiated."""


@dataclass(frozen=True)
class Penalised:
    """What a penalty acts on.

    Attributes:
        coupling: units that may go.
        names: for `l1`, the parameters; without any, all with at least two axes that units sit on.
    """

    coupling: Coupling
    names: tuple[str, ...] = ()


def l1(network: GraphModule, on: Penalised) -> Term:
    """sum |w| (Tibshirani 1996; in pruning: Han et al. 2015, arXiv:1506.02626)."""
    names = on.names or tuple(dict.fromkeys(slot.tensor for slot in on.coupling.slots))
    found = [attribute(network, name) for name in names]
    weights = [item for item in found if _trains(item) and (on.names or item.dim() > 1)]
    if not weights:
        raise _nothing(Penalty.L1, "a weight that can go and be trained")
    return lambda: torch.stack([weight.abs().sum() for weight in weights]).sum()


def group_lasso(network: GraphModule, on: Penalised) -> Term:
    """sum over units of sqrt(size) ||w||, w all weights that go with the unit and size their
    number (Yuan & Lin 2006; Wen et al. 2016, arXiv:1608.03665)."""
    squares, sizes = unit_squares(network, on.coupling)
    if not bool(sizes.any()):
        raise _nothing(Penalty.GROUP_LASSO, "a unit that can go")
    roots = sizes.sqrt()

    def term() -> Tensor:
        found = squares()
        # At zero the norm has no slope; the smallest of its subgradients is taken.
        tiny = torch.finfo(found.dtype).tiny
        norms = torch.where(found > tiny, found.clamp_min(tiny).sqrt(), 0.0)
        return (roots * norms).sum()

    return term


def norm_scale(network: GraphModule, on: Penalised) -> Term:
    """sum |gamma| over scales of norms whose unit may go (Liu et al. 2017, arXiv:1708.06519)."""
    scales = {id(item): item for item in _norm_weights(network) if _trains(item)}
    places: list[tuple[nn.Parameter, Tensor]] = []
    for slot in on.coupling.slots:
        found = attribute(network, slot.tensor)
        if id(found) in scales and found.dim() == 1:
            live = torch.from_numpy(slot.units != STAYS).nonzero().squeeze(1)
            places.append((found, live.to(found.device)))
    if not places:
        raise _nothing(Penalty.NORM_SCALE, "a norm with a scale per channel that can go")
    return lambda: torch.stack([scale[live].abs().sum() for scale, live in places]).sum()


TERMS: Mapping[Penalty, Callable[[GraphModule, Penalised], Term]] = {
    Penalty.L1: l1,
    Penalty.GROUP_LASSO: group_lasso,
    Penalty.NORM_SCALE: norm_scale,
}


class SparseTraining:
    """Adds `strength` times a penalty to the loss. Only the weights of the end count: the longer
    the penalty has drawn at them, the better they can be told apart, while the score rather
    prefers the start."""

    def __init__(self, penalty: Penalty, strength: float, on: Penalised) -> None:
        self._kind, self._strength, self._on = penalty, strength, on
        self._term: Term | None = None

    def begin(self, setting: Setting) -> None:
        """Look up what the penalty acts on.

        Raises:
            ConfigError: there is nothing.
        """
        self._term = TERMS[self._kind](setting.network, self._on)

    def penalty(self) -> Tensor | None:
        """The penalty as it is."""
        assert self._term is not None
        return self._strength * self._term()

    def before_step(self, step: int, steps: int) -> None:
        """Nothing."""

    def after_step(self, step: int, steps: int) -> None:
        """Nothing."""

    def counts(self, done: int, steps: int) -> bool:
        """At the end."""
        return done == steps

    def snapshot(self) -> State:
        """Nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing."""

    def memory(self) -> Memory:
        """Nothing: the penalty is a function of the weights."""
        return {}

    def recall(self, memory: Memory) -> None:
        """Nothing."""


def _trains(item: object) -> bool:
    return isinstance(item, nn.Parameter) and item.requires_grad


def _norm_weights(network: GraphModule) -> list[object]:
    """The scales of all norms in the graph."""
    found: list[object] = []
    for node in network.graph.nodes:
        if node.op == "call_function" and operator_name(node) in NORMS:
            weight = argument(node, "weight")
            if isinstance(weight, Node) and weight.op == "get_attr":
                found.append(attribute(network, str(weight.target)))
    return found


def _nothing(penalty: Penalty, what: str) -> ConfigError:
    others = " or ".join(item.value for item in Penalty if item is not penalty)
    return ConfigError(
        f"--penalty: {penalty.value} needs {what}, got a network without", f"use --penalty {others}"
    )
