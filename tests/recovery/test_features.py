"""Features to learn from: which ones, how far apart, and a graph that is left as it was."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import SGD, Watcher, captured, cnn, mlp, train
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

from prunecli.errors import ConfigError
from prunecli.graph.again import captured_again
from prunecli.graph.capture import Captured, capture
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import positional
from prunecli.graph.walk import walk
from prunecli.recovery.features import MOST, Features, features_of
from prunecli.recovery.tapping import Taps
from prunecli.selection.plan import kept_indices
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept


class Blocks(nn.Module):
    """Residual blocks on a stream; `first` and `fc` stand around them."""

    def __init__(self, number: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(number)
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for block in self.blocks:
            x = F.relu(x + block(x))
        found: Tensor = self.fc(x.mean((2, 3)))
        return found


class Heads(nn.Module):
    """A memory of its own: a recurrent layer, a norm, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.twice = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.lstm(torch.tanh(self.first(x)))[0])
        found: Tensor = self.last(torch.tanh(self.twice(torch.tanh(self.twice(x)))).mean(1))
        return found


def made(module: nn.Module, *shape: int) -> Captured:
    return capture(module.eval(), positional((torch.randn(2, *shape),)))


def smaller(captured: Captured, seed: int = 0) -> tuple[GraphModule, dict[str, dict]]:  # type: ignore[type-arg]
    """Without a quarter of all units, and which indices are left."""
    flow = walk(captured)
    coupling = couple(flow)
    keep = np.ones(coupling.count, dtype=np.bool_)
    generator = np.random.default_rng(seed)
    for group in coupling.groups:
        keep[generator.choice(group.units, group.units.size // 4, replace=False)] = False
    left = kept_indices(coupling, keep)
    return compact(captured, make_kept(flow, coupling, keep)), left


def compared(captured: Captured, network: GraphModule, left: dict, inputs: Tensor) -> Features:  # type: ignore[type-arg]
    def run() -> None:
        captured.network(inputs)
        network(inputs)

    found = features_of(captured.network, network, left, run)
    assert found is not None
    return found


def test_ends_of_blocks_are_compared_where_there_are_any() -> None:
    torch.manual_seed(0)
    captured = made(Blocks(), 3, 6, 6)
    network, left = smaller(captured)
    found = compared(captured, network, left, torch.randn(4, 3, 6, 6))
    # What the first block ends with, and what the second one does, averaged.
    assert found.weights == ("blocks.1.0.weight", "fc.weight")


def test_elsewhere_what_layers_read_is() -> None:
    torch.manual_seed(0)
    captured = made(Heads(), 7, 5)
    network, left = smaller(captured)
    found = compared(captured, network, left, torch.randn(4, 7, 5))
    # Of the recurrent layer's inputs; "twice" has two of them.
    assert found.weights == ("lstm.weight_ih_l0", "norm.weight", "last.weight")


def test_of_many_features_some_are_compared_the_last_among_them() -> None:
    torch.manual_seed(0)
    captured = made(Blocks(2 * MOST + 3), 3, 4, 4)
    network, left = smaller(captured)
    found = compared(captured, network, left, torch.randn(4, 3, 4, 4))
    assert len(found) == len(set(found.weights)) == MOST
    assert found.weights[-1] == "fc.weight"


def test_the_distance_is_that_of_kept_channels_over_their_variance() -> None:
    torch.manual_seed(0)
    module = Blocks().eval()
    captured = made(module, 3, 6, 6)
    network, left = smaller(captured)
    first, other = torch.randn(9, 3, 6, 6), torch.randn(5, 3, 6, 6)
    found = compared(captured, network, left, first)
    with torch.no_grad(), found.watched():
        captured.network(other)
        network(other)
        distance = float(found.distance())

    kept = list(left["fc.weight"][1])
    assert 0 < len(kept) < 8, "the stream is cut"

    def ends(x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the original's blocks, on the channels that stay."""
        x = module.first(x).relu()
        one = F.relu(x + module.blocks[0](x))
        two = F.relu(one + module.blocks[1](one)).mean((2, 3))
        return one[:, kept], two[:, kept]

    def shrunk(x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the original's with all that is gone at zero, which is what is left of it."""
        cut = Blocks().eval()
        cut.load_state_dict(module.state_dict())
        with torch.no_grad():
            for name, parameter in cut.named_parameters():
                for axis, indices in left.get(name, {}).items():
                    gone = [i for i in range(parameter.shape[axis]) if i not in indices]
                    parameter.index_fill_(axis, torch.tensor(gone), 0.0)
        x = cut.first(x).relu()
        one = F.relu(x + cut.blocks[0](x))
        return one[:, kept], F.relu(one + cut.blocks[1](one)).mean((2, 3))[:, kept]

    with torch.no_grad():
        expected = 0.0
        for mine, theirs, known in zip(shrunk(other), ends(other), ends(first), strict=True):
            spread = known.transpose(0, 1).flatten(1).var(1, correction=0).mean()
            expected += float((mine - theirs).square().mean() / spread) / 2
    assert distance == pytest.approx(expected, rel=1e-5)


def test_nodes_may_have_other_names_and_blocks_be_gone() -> None:
    torch.manual_seed(0)
    captured = made(Blocks(3), 3, 6, 6)
    network, left = smaller(captured)
    inputs = torch.randn(4, 3, 6, 6)
    before = compared(captured, network, left, inputs)
    again = captured_again(network, captured).network
    for node in list(again.graph.nodes):
        if node.op == "call_function":
            node._rename(f"other_{node.name}")
    again.recompile()
    after = compared(captured, again, left, inputs)
    assert after.weights == before.weights
    found = []
    for features, each in ((before, network), (after, again)):
        with torch.no_grad(), features.watched():
            captured.network(inputs)
            each(inputs)
            found.append(float(features.distance()))
    assert found[0] == found[1] > 0


def test_a_network_that_was_watched_is_as_it_was() -> None:
    network, other = cnn(), cnn()
    code = network.code
    inputs = torch.randn(4, 3, 8, 8)
    expected = network(inputs)

    def run() -> None:
        network(inputs)
        other(inputs)

    found = features_of(other, network, {}, run)
    assert found is not None
    with found.watched():
        assert network.code != code
        with found.unwatched():
            assert network.code == code
        assert torch.equal(network(inputs), expected)
    assert network.code == code
    assert other.code == cnn().code


def test_what_is_overwritten_later_is_seen_as_it_was_read() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            found: Tensor = self.two(x)
            x.mul_(0.0)
            return found + x

    torch.manual_seed(0)
    captured = made(Writes(), 4)
    found = features_of(captured.network, captured.network, {}, lambda: None)
    assert found is None, "nothing else is left to be compared"
    (reader,) = [
        node
        for node in captured.network.graph.nodes
        if node.op == "call_function" and str(node.args[1]) == "two_weight"
    ]
    taps = Taps(captured.network, [(reader, reader.args[0])])
    with taps.opened(), torch.no_grad():
        captured.network(torch.randn(2, 4))
        assert len(taps.taken()) == 1


def test_what_is_learnt_comes_closer_inside() -> None:
    """Outputs alone leave the hidden units free to be something else."""
    teacher, apart = mlp(), []
    wanted = dict(teacher.named_parameters())["0.weight"]
    for weight in (0.0, 3.0):
        network, watcher = mlp(), Watcher()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        config = dataclasses.replace(
            SGD, epochs=20, lr=0.02, weight_decay=0.0, distill=1.0, features=weight
        )
        result = train(network, config, watcher, teacher=teacher)
        apart.append(float((watcher.weights[-1]["0.weight"] - wanted).detach().norm()))
    assert apart[1] < 0.2 * apart[0]
    words = "and 3 times that of 1 feature inside"
    assert any(words in note for note in result.notes)


def test_features_need_an_original_with_something_inside() -> None:
    config = dataclasses.replace(SGD, features=1.0)
    with pytest.raises(ConfigError, match="--distill-features: needs the original network"):
        train(mlp(), config)
    one = captured(nn.Linear(6, 3), 6)
    with pytest.raises(ConfigError, match="--distill-features: a layer inside must read the same"):
        train(one, config, teacher=captured(nn.Linear(6, 3), 6))
