"""Criteria for blocks: how much the network needs each.

Stage: importance. In: captured network, blocks, calibration examples. Out: one score per block;
larger means more important. Never decides what goes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.choices import Criterion
from prunecli.errors import ConfigError, TrainingError
from prunecli.graph.blocks import Block
from prunecli.graph.bypass import run_without
from prunecli.graph.capture import Captured
from prunecli.graph.fields import Value, labelled_axes
from prunecli.graph.labels import LabelArray, components
from prunecli.graph.walk import Flow
from prunecli.importance.calibration import Calibration
from prunecli.importance.evidence import Evidence
from prunecli.importance.scores import Scores
from prunecli.progress import Reporter
from prunecli.removal import Mixture

BATCH = 64
"""Examples at once, where the network takes any number."""


def score_blocks(
    captured: Captured,
    flow: Flow,
    blocks: Sequence[Block],
    mixture: Mixture,
    calibration: Calibration | None,
    seed: int,
    reporter: Reporter,
) -> Scores:
    """Score of every block, shape (blocks,), in the criterion's own scale.

    A mixture adds up its parts, each divided by its largest absolute value first.

    Raises:
        ConfigError: the criterion needs data and there is none, or less than the network takes at
            once.
        TrainingError: the network's numbers are not finite.
    """
    evidence = Evidence(captured, calibration, seed, reporter)
    parts = [
        (_scores(criterion, blocks, flow, evidence), weight) for criterion, weight in mixture.parts
    ]
    if len(parts) == 1:
        return parts[0][0]
    total = np.zeros(len(blocks), dtype=np.float64)
    for scores, weight in parts:
        largest = float(np.abs(scores).max(initial=0.0))
        total += weight * (scores / largest if largest > 0.0 else scores)
    return total


def _scores(
    criterion: Criterion, blocks: Sequence[Block], flow: Flow, evidence: Evidence
) -> Scores:
    if criterion is Criterion.RANDOM:
        return np.random.default_rng(evidence.seed).random(len(blocks))
    if evidence.calibration is None:
        raise ConfigError(
            f"--criterion {criterion.value}: judges blocks on examples, got no data",
            "give --data, or use --criterion random",
        )
    if criterion is Criterion.LOSS:
        return _losses(blocks, evidence)
    return _changes(blocks, flow, evidence)


def _losses(blocks: Sequence[Block], evidence: Evidence) -> Scores:
    """The loss without each block minus the loss with all.

    Leaving one out, as in Kim et al. 2024, "Shortened LLaMA" (arXiv:2402.02834), there with
    perplexity.
    """
    network = evidence.captured.network
    given = evidence.examples()
    cuts = evidence.cuts(BATCH, rest=True)
    found = []
    total = len(cuts) * (len(blocks) + 1)
    with evidence.reporter.step("trying the network without each block", total) as step:
        for number, left_out in enumerate([(), *((block,) for block in blocks)]):
            loss, count = 0.0, 0
            for place, cut in enumerate(cuts):
                inputs, targets = (
                    tuple(item[cut] for item in items) for items in (given.inputs, given.targets)
                )
                outputs = run_without(network, left_out, inputs)
                exact = tuple(
                    item.double() if item.is_floating_point() else item for item in outputs
                )
                loss += float(given.task.loss(exact, targets, 0.0)) * len(inputs[0])
                count += len(inputs[0])
                step.update(number * len(cuts) + place + 1)
            found.append(loss / count)
            _check_finite(found[-1], left_out[0].name if left_out else "")
    return np.asarray(found[1:], dtype=np.float64) - found[0]


def _changes(blocks: Sequence[Block], flow: Flow, evidence: Evidence) -> Scores:
    """How far each block turns what passes through it: 1 - the mean cosine of the angle between
    entry and exit, over examples and positions.

    The block influence of Men et al. 2024, "ShortGPT" (arXiv:2403.03853).
    """
    runner = _Turning(evidence.captured.network, blocks, flow)
    cuts = evidence.cuts(BATCH, rest=True)
    for inputs, _ in evidence.batches("comparing what goes into blocks and comes out", cuts):
        with torch.no_grad():
            runner.run(*inputs)
    scores = np.asarray([1.0 - runner.mean(block.name) for block in blocks], dtype=np.float64)
    for block, score in zip(blocks, scores, strict=True):
        _check_finite(float(score), block.name)
    return scores


def _check_finite(number: float, block: str) -> None:
    if not math.isfinite(number):
        where = f"at block {block}" if block else "as it is"
        raise TrainingError(
            f"calibration: the network {where} must compute finite numbers, got {number}",
            "check the data, or use --criterion random",
        )


class _Turning(fx.Interpreter):
    """Runs a graph, and compares every block's exit with its entry."""

    def __init__(self, network: fx.GraphModule, blocks: Sequence[Block], flow: Flow) -> None:
        super().__init__(network)
        self.axes = channel_axes(blocks, flow)
        self.starting: dict[str, list[Block]] = {}
        self.ending: dict[str, list[Block]] = {}
        for block in blocks:
            self.starting.setdefault(block.entry, []).append(block)
            self.ending.setdefault(block.exit, []).append(block)
        self.open: dict[str, Tensor] = {}
        self.sums = dict.fromkeys(self.axes, 0.0)
        self.counts = dict.fromkeys(self.axes, 0)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        for block in self.ending.get(n.name, ()):
            cosines = cosine(self.open.pop(block.name), value, self.axes[block.name])
            self.sums[block.name] += float(cosines.sum())
            self.counts[block.name] += cosines.numel()
        for block in self.starting.get(n.name, ()):
            # A copy, since `x += f(x)` writes over it.
            self.open[block.name] = value.clone()
        return value

    def mean(self, block: str) -> float:
        """Mean cosine over all that has been run."""
        return self.sums[block] / self.counts[block]


def channel_axes(blocks: Sequence[Block], flow: Flow) -> dict[str, tuple[int, ...]]:
    """Per block, the axes of its entry that hold features: those whose labels go through most
    parameters, as a table of positions has labels too. Without any labels, all axes but the
    first, which counts examples."""
    values = {block.name: _labelled(block, flow) for block in blocks}
    counts: dict[int, int] = {}
    roots: LabelArray | None = None
    if any(len(value.fields) > 1 for value in values.values()):
        roots = components(flow.labels.count, flow.labels.ties)
        for parameter in flow.parameters.values():
            for root in {int(roots[_first(field)]) for field in parameter.fields}:
                counts[root] = counts.get(root, 0) + 1
    found = {}
    for name, value in values.items():
        fields = list(value.fields)
        if roots is not None:
            own = roots
            fields.sort(key=lambda field: -counts.get(int(own[_first(field)]), 0))
        rest = tuple(range(1, len(value.shape))) or (0,)
        found[name] = labelled_axes(fields[0]) if fields else rest
    return found


def _labelled(block: Block, flow: Flow) -> Value:
    """The value of a block's entry; where that has no labels, of its exit."""
    values = [flow.values[name] for name in (block.entry, block.exit)]
    known = [value for value in values if isinstance(value, Value)]
    return next((value for value in known if value.fields), known[0])


def _first(field: Tensor) -> int:
    return int(field.flatten()[0])


def cosine(one: Tensor, two: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Cosine of the angle between two values of one shape along `axes`, in float64.

    Two zero vectors are the same, a zero vector and another have nothing in common.
    """
    one, two = one.double(), two.double()
    product = (one * two).sum(axes)
    first, second = (item.square().sum(axes).sqrt() for item in (one, two))
    nothing = (first == 0.0) & (second == 0.0)
    size = (first * second).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(nothing, 1.0, product / size)
