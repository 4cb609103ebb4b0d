"""Every criterion equals its formula, computed slowly from the eager network.

Nothing of the engine is used for what is expected: gradients come from autograd on the network
itself, what goes with a unit was written out by hand, sums run over plain numbers.
"""

import copy
import math
import statistics
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from importance_cases import NAMES, Case, Masks, make
from torch import Tensor, nn

from prunecli.choices import CRITERIA, Criterion, Strategy
from prunecli.graph.maskable import maskables
from prunecli.importance.units import score_units
from prunecli.importance.weights import score_weights
from prunecli.progress import SilentReporter
from prunecli.removal import mixture
from prunecli.tasks import REGRESSION

SEED = 5
Elements = dict[str, Tensor]
Units = dict[str, list[float]]

cached = cache(make)


# Numbers of single weights


def parameters(case: Case) -> Elements:
    return {name: tensor.detach() for name, tensor in case.module.named_parameters()}


def loss(case: Case, module: nn.Module, rows: slice) -> Tensor:
    outputs, targets = module(case.calibration.inputs[0][rows]), case.calibration.targets[0][rows]
    if case.calibration.task is REGRESSION:
        return ((outputs - targets) ** 2).mean()
    return F.cross_entropy(outputs, targets)


def gradient(case: Case, module: nn.Module, rows: slice) -> Elements:
    module.zero_grad()
    loss(case, module, rows).backward()
    return {name: tensor.grad.clone() for name, tensor in module.named_parameters()}


def batch_gradients(case: Case) -> list[Elements]:
    """Of the two whole batches of 32; the rest of 6 is left out."""
    return [gradient(case, case.module, slice(start, start + 32)) for start in (0, 32)]


def example_gradients(case: Case) -> list[Elements]:
    return [gradient(case, case.module, slice(i, i + 1)) for i in range(len(case.calibration))]


def mean(items: list[Tensor]) -> Tensor:
    return sum(items[1:], items[0]) / len(items)


def by_name(case: Case, what: Callable[[str], Tensor]) -> Elements:
    return {name: what(name) for name in parameters(case)}


def trajectory(case: Case) -> Iterator[tuple[Elements, Elements]]:
    """Weights before each of 32 steps of SGD, and the gradient (at most 1 long); then the end."""
    module = copy.deepcopy(case.module)
    for step in range(32):
        start = step % 2 * 32
        found = gradient(case, module, slice(start, start + 32))
        length = math.sqrt(sum(float((g**2).sum()) for g in found.values()))
        found = {name: g / max(length, 1.0) for name, g in found.items()}
        yield {n: p.detach().clone() for n, p in module.named_parameters()}, found
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter -= 0.01 * found[name]
    yield {n: p.detach().clone() for n, p in module.named_parameters()}, {}


def movement(case: Case) -> Elements:
    steps = [(w, g) for w, g in trajectory(case) if g]
    return by_name(case, lambda name: -sum(g[name] * w[name] for w, g in steps))


def weight_change(case: Case) -> Elements:
    *_, (end, _) = trajectory(case)
    return by_name(case, lambda name: end[name].abs() - parameters(case)[name].abs())


def spread(case: Case) -> Elements:
    points = [w for w, _ in trajectory(case)]
    assert len(points) == 33
    return by_name(case, lambda name: torch.stack([w[name] for w in points]).var(0, unbiased=False))


def mean_gradient_size(case: Case) -> Elements:
    found = batch_gradients(case)
    return by_name(case, lambda name: mean([g[name].abs() for g in found]))


def obd(case: Case) -> Elements:
    found = example_gradients(case)
    return by_name(
        case, lambda name: 0.5 * parameters(case)[name] ** 2 * mean([g[name] ** 2 for g in found])
    )


def squared_products(case: Case) -> Elements:
    found = batch_gradients(case)
    return by_name(
        case, lambda name: mean([(g[name] * parameters(case)[name]) ** 2 for g in found])
    )


def connection_sensitivity(case: Case) -> Elements:
    found = batch_gradients(case)
    return by_name(case, lambda name: (sum(g[name] for g in found) * parameters(case)[name]).abs())


# Units


def members(elements: Elements, unit: Masks) -> list[float]:
    return [x for name, mask in unit.items() for x in elements[name][mask].tolist()]


def over_units(case: Case, elements: Elements, what: Callable[[list[float]], float]) -> Units:
    return {
        group: [what(members(elements, unit)) for unit in units]
        for group, units in case.parts.items()
    }


def of_weights(what: Callable[[list[float]], float]) -> Callable[[Case], Units]:
    return lambda case: over_units(case, parameters(case), what)


def summed(elements: Callable[[Case], Elements]) -> Callable[[Case], Units]:
    return lambda case: over_units(case, elements(case), math.fsum)


def unit_taylor(case: Case) -> Units:
    products = [
        {name: g[name] * w for name, w in parameters(case).items()} for g in batch_gradients(case)
    ]
    each = [over_units(case, item, math.fsum) for item in products]
    return {
        group: [statistics.fmean(found[group][i] ** 2 for found in each) for i in range(len(units))]
        for group, units in case.parts.items()
    }


def unit_snip(case: Case) -> Units:
    elements = connection_sensitivity(case)
    # Everything on which a unit sits: all but the last bias.
    last = list(elements)[-1]
    total = sum(float(item.sum()) for name, item in elements.items() if name != last)
    return over_units(case, elements, lambda values: math.fsum(values) / total)


def unit_lamp(case: Case) -> Units:
    squares = over_units(case, parameters(case), lambda values: sum(x**2 for x in values))
    return {
        group: [x / sum(y for y in own if y >= x) for x in own] for group, own in squares.items()
    }


def bn_scale(case: Case) -> Units:
    if not isinstance(getattr(case.module, "bn1", None), nn.BatchNorm2d):
        pytest.skip("no norms: refused, see below")
    own = parameters(case)
    return {
        "a": own["bn1.weight"].abs().tolist(),
        "g": own["bn2.weight"].abs().tolist(),
    }


def fpgm(case: Case) -> Units:
    own = parameters(case)
    gates = [
        f"rnn.weight_{kind}_{end}"
        for kind in ("ih", "hh")
        for end in ("l0", "l0_reverse", "l1", "l1_reverse")
    ]
    filters: dict[str, list[str]] = {
        "a": ["a.weight", "b.weight", "dw.weight"] if "dw.weight" in own else ["a.weight"],
        "g": ["g.weight"],
        "b": ["b.weight"],
        "rnn.weight_ih_l0": gates,
    }

    def filter_of(name: str, i: int) -> Tensor:
        weight = own[name]
        return weight[i::4].reshape(-1) if name in gates else weight[i].reshape(-1)

    return {
        group: [
            sum(
                float((filter_of(name, i) - filter_of(name, j)).norm())
                for name in filters[group]
                for j in range(len(units))
            )
            for i in range(len(units))
        ]
        for group, units in case.parts.items()
    }


def random_units(case: Case) -> Units:
    drawn = np.random.default_rng(SEED).random(case.coupling.count)
    return {group.name: drawn[group.units].tolist() for group in case.coupling.groups}


# Activations


def over_reads(
    case: Case, what: Callable[[Tensor], float], inner: Callable[[list[float]], float]
) -> Units:
    """`what` of every place of a unit in a value, `inner` over its places, mean over values."""
    with torch.no_grad():
        reads = case.module.reads(case.calibration.inputs[0])
    return {
        group: [
            statistics.fmean(
                inner([what(value[:, place]) for place in places]) for value in reads[group]
            )
            for places in case.entries[group]
        ]
        for group in case.parts
    }


def neuron_taylor(case: Case) -> Units:
    total: Units = {group: [0.0] * len(units) for group, units in case.parts.items()}
    for i in range(len(case.calibration)):
        inputs, target = (
            case.calibration.inputs[0][i : i + 1],
            case.calibration.targets[0][i : i + 1],
        )
        reads = case.module.reads(inputs)
        outputs = reads.pop("outputs")[0]
        if case.calibration.task is REGRESSION:
            lost = ((outputs - target) ** 2).mean()
        else:
            lost = F.cross_entropy(outputs, target)
        for group, values in reads.items():
            for value in values:
                (slope,) = torch.autograd.grad(lost, value, retain_graph=True)
                for unit, places in enumerate(case.entries[group]):
                    part = (value * slope)[:, places].mean().abs()
                    total[group][unit] += float(part.detach()) / len(values) / len(case.calibration)
    return total


# Single weights


def weight_lamp(case: Case) -> Elements:
    return {
        name: torch.tensor([x**2 / sum(y**2 for y in flat if y**2 >= x**2) for x in flat]).reshape(
            w.shape
        )
        for name, w in parameters(case).items()
        for flat in [w.reshape(-1).tolist()]
    }


def weight_snip(case: Case) -> Elements:
    found = connection_sensitivity(case)
    own = {name for name in found if found[name].dim() > 1}
    total = sum(float(found[name].sum()) for name in own)
    return {name: found[name] / total for name in own}


def random_weights(case: Case) -> Elements:
    generator = torch.Generator().manual_seed(SEED)
    return {
        item.name: torch.rand(item.shape, generator=generator)
        for item in maskables(case.captured, case.flow)
    }


@torch.no_grad()
def wanda(case: Case) -> Elements:
    own = parameters(case)
    norms = {"conv": conv_norms, "mlp": mlp_norms, "lstm": lstm_norms}
    found = norms[type(case.module).__name__.lower().removesuffix("net")](case)
    return {name: own[name].abs() * norm for name, norm in found.items()}


def channel_norms(x: Tensor) -> list[float]:
    """Of (N, C, ...)."""
    return [math.sqrt(float((x[:, c] ** 2).sum())) for c in range(x.shape[1])]


def conv_norms(case: Case) -> Elements:
    x = case.calibration.inputs[0]
    reads = case.module.reads(x)
    one, two, three = (torch.tensor(channel_norms(item)) for item in reads["a"])
    return {
        "a.weight": torch.tensor(channel_norms(x)).reshape(1, 3, 1, 1),
        "b.weight": one.reshape(1, 6, 1, 1),
        "dw.weight": two.reshape(6, 1, 1, 1),
        "g.weight": torch.stack([three[:3]] * 4 + [three[3:]] * 4).reshape(8, 3, 1, 1),
        "fc.weight": torch.tensor(channel_norms(reads["g"][0])).reshape(1, 8),
    }


def mlp_norms(case: Case) -> Elements:
    reads = case.module.reads(case.calibration.inputs[0])
    return {
        "a.weight": torch.tensor(channel_norms(case.calibration.inputs[0])),
        "b.weight": torch.tensor(channel_norms(reads["a"][0])),
        "c.weight": torch.tensor(channel_norms(reads["b"][0])),
    }


def lstm_norms(case: Case) -> Elements:
    """Step by step, with the equations of an LSTM."""
    own = parameters(case)
    found: Elements = {}
    x = case.calibration.inputs[0]
    for layer in ("l0", "l1"):
        outs = []
        for end in (layer, f"{layer}_reverse"):
            w, u, b, c = (
                own[f"rnn.{kind}_{end}"]
                for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h = cell = torch.zeros(len(x), 4, dtype=torch.float64)
            read, steps = torch.zeros(4, dtype=torch.float64), {}
            times = range(7) if end == layer else range(6, -1, -1)
            for time in times:
                read += (h**2).sum(0)
                i, f, g, o = (x[:, time] @ w.T + b + h @ u.T + c).chunk(4, 1)
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                h = o.sigmoid() * cell.tanh()
                steps[time] = h
            found[f"rnn.weight_ih_{end}"] = (x**2).sum((0, 1)).sqrt()
            found[f"rnn.weight_hh_{end}"] = read.sqrt()
            outs.append(torch.stack([steps[time] for time in range(7)], 1))
        x = torch.cat(outs, 2)
    found["fc.weight"] = (x.mean(1) ** 2).sum(0).sqrt()
    return found


C = Criterion

UNIT_ROWS: dict[tuple[Strategy, Criterion], Callable[[Case], Units]] = {
    (Strategy.STRUCTURED, C.L1): of_weights(lambda ws: math.fsum(abs(w) for w in ws)),
    (Strategy.STRUCTURED, C.L2): of_weights(lambda ws: math.sqrt(math.fsum(w * w for w in ws))),
    (Strategy.STRUCTURED, C.LINF): of_weights(lambda ws: max(abs(w) for w in ws)),
    (Strategy.STRUCTURED, C.RANDOM): random_units,
    (Strategy.STRUCTURED, C.VARIANCE): of_weights(statistics.pvariance),
    (Strategy.STRUCTURED, C.BN_SCALE): bn_scale,
    (Strategy.STRUCTURED, C.FPGM): fpgm,
    (Strategy.STRUCTURED, C.LAMP): unit_lamp,
    (Strategy.STRUCTURED, C.GRADIENT): summed(mean_gradient_size),
    (Strategy.STRUCTURED, C.TAYLOR): unit_taylor,
    (Strategy.STRUCTURED, C.FISHER): summed(obd),
    (Strategy.STRUCTURED, C.SNIP): unit_snip,
    (Strategy.STRUCTURED, C.MOVEMENT): summed(movement),
    (Strategy.STRUCTURED, C.WEIGHT_CHANGE): summed(weight_change),
    (Strategy.NEURON, C.ACTIVATION): lambda case: over_reads(
        case, lambda a: float(a.abs().mean()), statistics.fmean
    ),
    (Strategy.NEURON, C.APOZ): lambda case: over_reads(
        case, lambda a: 1.0 - float((a == 0).double().mean()), statistics.fmean
    ),
    (Strategy.NEURON, C.ACTIVATION_VARIANCE): lambda case: over_reads(
        case, lambda a: float(a.var(unbiased=False)), statistics.fmean
    ),
    (Strategy.NEURON, C.TAYLOR): neuron_taylor,
    (Strategy.NEURON, C.RANDOM): random_units,
}

WEIGHT_ROWS: dict[Criterion, Callable[[Case], Elements]] = {
    C.L1: lambda case: by_name(case, lambda name: parameters(case)[name].abs()),
    C.L2: lambda case: by_name(case, lambda name: parameters(case)[name] ** 2),
    C.LINF: lambda case: by_name(case, lambda name: parameters(case)[name].abs()),
    C.RANDOM: random_weights,
    C.VARIANCE: spread,
    C.LAMP: weight_lamp,
    C.WANDA: wanda,
    C.GRADIENT: mean_gradient_size,
    C.TAYLOR: squared_products,
    C.FISHER: obd,
    C.SNIP: weight_snip,
    C.MOVEMENT: movement,
    C.WEIGHT_CHANGE: weight_change,
}


def test_every_criterion_has_its_row() -> None:
    # See test_restorable.
    rows = {
        (Strategy.STRUCTURED, C.RECONSTRUCTION),
        *UNIT_ROWS,
        *((Strategy.WEIGHT, criterion) for criterion in WEIGHT_ROWS),
    }
    wanted = {
        (strategy, criterion)
        for strategy in (Strategy.STRUCTURED, Strategy.NEURON, Strategy.WEIGHT)
        for criterion in CRITERIA[strategy]
    }
    assert rows == wanted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("strategy", "criterion"), UNIT_ROWS)
def test_units(name: str, strategy: Strategy, criterion: Criterion) -> None:
    case = cached(name)
    expected = UNIT_ROWS[strategy, criterion](case)
    found = score_units(
        case.captured, case.flow, case.coupling, strategy, mixture(criterion), case.calibration,
        SEED, SilentReporter(),
    ).raw  # fmt: skip
    assert {group.name for group in case.coupling.groups} == set(case.parts)
    for group in case.coupling.groups:
        # Differences of numbers that nearly cancel are compared with the group's scale.
        scale = max(abs(x) for x in expected[group.name])
        np.testing.assert_allclose(
            found[group.units], expected[group.name], rtol=1e-6, atol=1e-9 * scale
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("criterion", WEIGHT_ROWS)
def test_single_weights(name: str, criterion: Criterion) -> None:
    case = cached(name)
    expected = WEIGHT_ROWS[criterion](case)
    own = maskables(case.captured, case.flow)
    found = score_weights(
        case.captured, own, mixture(criterion), case.calibration, SEED, SilentReporter()
    )
    weights = [key for key, value in parameters(case).items() if value.dim() > 1]
    assert sorted(found) == sorted(weights)
    for key in weights:
        scale = float(expected[key].abs().max())
        assert found[key].shape == parameters(case)[key].shape
        np.testing.assert_allclose(
            found[key].numpy(), expected[key].numpy(), rtol=1e-6, atol=1e-9 * scale, err_msg=key
        )
