"""Packed sequences: captured with their padding, exact at every real step.

The expectations are PyTorch's own packed layers, and for the pruned network the LSTM's equations
written out here, sequence by sequence at its own length, on the units that the plan keeps.
"""

import pytest
import torch
from engine_harness import Analysis, Pruned, analyse_captured, assert_same, macs, prune, shaken
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from prunecli.choices import Criterion
from prunecli.errors import ModelError
from prunecli.graph.capture import Captured, capture
from prunecli.graph.inputs import positional
from prunecli.graph.packed import NOTE
from prunecli.surgery.oracle import check

STEPS = 7
LENGTHS = ((7, 3), (2, 7), (7,), (1, 7, 5, 4), (3, 2, 6))


class Tagger(nn.Module):
    """Sequences (N, T, 5) and their lengths -> something at every step, and the last states."""

    def __init__(self, layer: nn.RNNBase, *, ordered: bool = False, started: bool = False) -> None:
        super().__init__()
        self.a = nn.Linear(5, 6)
        self.layer = layer
        self.ordered = ordered
        self.start = nn.Linear(5, layer.hidden_size) if started else None
        state = layer.proj_size or layer.hidden_size
        self.ends = nn.ModuleList([nn.Linear(state, 2), nn.Linear(layer.hidden_size, 2)])
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.b = nn.Linear(width, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        own = self.a(x) if self.layer.batch_first else self.a(x).transpose(0, 1)
        first = self.layer.batch_first
        packed = pack_padded_sequence(own, lengths, first, enforce_sorted=self.ordered)
        states = None
        if self.start is not None:
            state = self.start(x[:, 0]).expand(self.rows(), -1, -1).contiguous()
            states = (state, torch.tanh(state)) if self.layer.mode == "LSTM" else state
        seen, last = self.layer(packed, states)
        padded, again = pad_packed_sequence(seen, first, 0.5, total_length=x.shape[1])
        ends = last if isinstance(last, tuple) else (last,)
        last = [read(end) for read, end in zip(self.ends, ends, strict=False)]
        return (self.b(padded), again, *last)

    def rows(self) -> int:
        return self.layer.num_layers * (2 if self.layer.bidirectional else 1)


def inputs_of(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return torch.randn(len(lengths), STEPS, 5, generator=generator), torch.tensor(lengths)


def analyse(module: nn.Module, lengths: tuple[int, ...] = (7, 3)) -> Analysis:
    return analyse_captured(capture(module, positional(inputs_of(lengths))))


def assert_captured(module: nn.Module, captured: Captured, cases=LENGTHS) -> None:
    assert captured.notes == (NOTE,)
    for lengths in cases:
        inputs = inputs_of(lengths)
        with torch.no_grad():
            assert_same(module(*inputs), captured.network(*inputs), 1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(6, 8, batch_first=True),
        lambda: nn.LSTM(6, 8, 2, bidirectional=True, dropout=0.2),
        lambda: nn.LSTM(6, 8, bias=False, batch_first=True, proj_size=3),
        lambda: nn.GRU(6, 8, 2, batch_first=True, bidirectional=True),
        lambda: nn.RNN(6, 8, bidirectional=True),
        lambda: nn.RNN(6, 8, nonlinearity="relu", batch_first=True),
    ],
)
def test_the_graph_is_the_packed_network(make) -> None:
    module = shaken(Tagger(make()))
    assert_captured(module, analyse(module).captured)


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_first_states_go_with_their_sequences(layer) -> None:
    module = shaken(Tagger(layer(6, 8, 2, bidirectional=True), started=True))
    assert_captured(module, analyse(module).captured)


def test_sorted_sequences() -> None:
    module = shaken(Tagger(nn.LSTM(6, 8, batch_first=True), ordered=True))
    assert_captured(module, analyse(module).captured, ((7, 3), (7, 7, 2), (5, 5)))


def test_packing_works_as_ever_afterwards() -> None:
    module = shaken(Tagger(nn.LSTM(6, 8, batch_first=True)))
    inputs = inputs_of((3, 7))
    before = module(*inputs)
    analyse(module)
    assert all(torch.equal(one, two) for one, two in zip(before, module(*inputs), strict=True))
    packed = pack_padded_sequence(*inputs, True, enforce_sorted=False)
    assert packed.data.shape == (10, 5)


def test_what_reads_the_packed_data_itself_is_refused() -> None:
    class Pooled(Tagger):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(self.a(x), lengths, True, enforce_sorted=False)
            return self.b(self.layer(packed)[0].data).mean(0)

    with pytest.raises(ModelError) as raised:
        analyse(shaken(Pooled(nn.LSTM(6, 8, batch_first=True))))
    assert raised.value.message.startswith("model: its packed sequences cannot be captured")
    assert "total_length" in raised.value.hint


def test_what_works_on_every_row_of_the_data_is_no_obstacle() -> None:
    class Between(Tagger):
        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
            packed = PackedSequence(self.a(packed.data), *packed[1:])
            return self.b(self.layer(packed)[1][0][-1])

    module = shaken(Between(nn.LSTM(6, 8, batch_first=True)))
    assert_captured(module, analyse(module).captured)


def pruned_tagger(both_ways: bool) -> tuple[Tagger, Analysis, Pruned]:
    module = Tagger(nn.LSTM(6, 16, 2, batch_first=True, bidirectional=both_ways))
    shaken(module)
    found = analyse(module)
    pruned = prune(found, macs(0.4), Criterion.RANDOM)
    return module, found, pruned


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_packed_lstm_pruned(both_ways: bool) -> None:
    module, found, pruned = pruned_tagger(both_ways)
    assert pruned.plan.after.macs <= 0.4 * pruned.plan.before.macs
    result = check(found.captured, pruned.network, pruned.kept)
    assert max(result.difference, result.worst) <= 1e-4
    for lengths in LENGTHS:
        x, own = inputs_of(lengths)
        outputs, again, last, cells = pruned.network(x, own)
        assert again.tolist() == list(lengths)
        for row, length in enumerate(lengths):
            ends, states, memory = by_hand(module, pruned.plan.tensors, x[row, :length])
            assert_same(ends, outputs[row, :length])
            assert_same(states, last[:, row])
            assert_same(memory, cells[:, row])


def by_hand(module: Tagger, plan, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence (T, 5) through what the plan keeps; outputs, sums of tanh of last states."""
    kept = list(plan["a.weight"][0]) if "a.weight" in plan else list(range(6))
    x = (x @ module.a.weight.T + module.a.bias)[:, kept]
    states, memory = [], []
    units = {}
    for number in range(2):
        below = kept if number == 0 else concatenated(units, number - 1, 16)
        sides = []
        for side in ("", "_reverse") if module.layer.bidirectional else ("",):
            name = f"l{number}{side}"
            again = plan[f"layer.weight_hh_{name}"]
            mine = units[name] = list(again[1])
            rows = [gate * 16 + unit for gate in range(4) for unit in mine]
            assert list(again[0]) == rows
            into, back, one, two = (
                getattr(module.layer, f"{what}_{name}").detach()
                for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            into, back, bias = into[rows][:, below], back[rows][:, mine], (one + two)[rows]
            steps = x.flip(0) if side else x
            seen, h, c = lstm(steps, into, back, bias)
            sides.append(seen.flip(0) if side else seen)
            for read, end, held in zip(module.ends, (h, c), (states, memory), strict=True):
                held.append(read.weight[:, mine] @ end + read.bias)
        x = torch.cat(sides, 1)
    columns = concatenated(units, 1, 16)
    outputs = x @ module.b.weight[:, columns].T + module.b.bias
    return outputs, torch.stack(states), torch.stack(memory)


def concatenated(units: dict[str, list[int]], number: int, width: int) -> list[int]:
    """Columns that read layer `number`: its forward units, then its backward ones."""
    backward = [width + unit for unit in units.get(f"l{number}_reverse", [])]
    return units[f"l{number}"] + backward


def lstm(x: Tensor, into: Tensor, back: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hochreiter's equations with forget gate, step by step."""
    h = c = torch.zeros(back.shape[1])
    seen = []
    for step in x:
        i, f, g, o = (into @ step + back @ h + bias).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        seen.append(h)
    return torch.stack(seen), h, c


def test_dead_code_is_dropped() -> None:
    """The cell's last state costs a second run, which only those pay who ask for it."""
    module = shaken(Tagger(nn.LSTM(6, 8, batch_first=True)))
    forward = module.forward
    module.forward = lambda x, lengths: forward(x, lengths)[0]  # type: ignore[method-assign]
    graph = analyse(module).captured.network.graph
    assert len(graph.find_nodes(op="call_function", target=torch.ops.aten.lstm.input)) == 1
