"""Mode switching and placement of captured graphs."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from prunecli.choices import DeviceName
from prunecli.errors import ConfigError
from prunecli.recovery.mode import learns_statistics, set_training, training_mode
from prunecli.recovery.placement import choose_device, placed


def captured(module: nn.Module, *shape: int) -> GraphModule:
    """The graph of `module` in evaluation mode, with a free batch axis."""
    example = torch.randn(2, *shape)
    shapes = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=shapes)
    network = program.module(check_guards=False)
    assert isinstance(network, GraphModule)
    return network


class Everything(nn.Module):
    """One of each kind of operator that carries a mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.stateless = nn.BatchNorm2d(4, track_running_stats=False)
        self.cumulative = nn.BatchNorm2d(4, momentum=None)
        self.instance = nn.InstanceNorm2d(4, track_running_stats=True)
        self.leaky = nn.RReLU()
        self.drop_channels = nn.Dropout2d(0.5)
        self.drop = nn.Dropout(0.5)
        self.drop_alpha = nn.AlphaDropout(0.5)
        self.head = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.cumulative(self.stateless(self.norm(self.conv(images))))
        hidden = self.drop_channels(self.leaky(self.instance(hidden)))
        hidden = nn.functional.dropout(hidden, 0.25, training=True)
        return self.head(self.drop_alpha(self.drop(hidden.mean((2, 3)))))


def calls(network: GraphModule) -> list[tuple[str, Any, Any]]:
    return [
        (str(node.target), node.args, dict(node.kwargs))
        for node in network.graph.nodes
        if node.op == "call_function"
    ]


def named_call(network: GraphModule, name: str) -> list[tuple[Any, ...]]:
    return [args for target, args, _ in calls(network) if target == f"aten.{name}.default"]


def test_training_flips_the_mode_of_everything_but_what_the_author_fixed() -> None:
    network = captured(Everything(), 3, 6, 6)
    set_training(network, True)
    norm, stateless, cumulative = named_call(network, "batch_norm")
    assert norm[5:7] == (True, 0.1)
    assert stateless[5:7] == (True, 0.1)
    assert cumulative[5:7] == (True, 0.1), "momentum 0 would never update the statistics"
    assert named_call(network, "instance_norm")[0][5] is False, "uses its statistics, as captured"
    assert named_call(network, "feature_dropout")[0][1:] == (0.5, True)
    assert named_call(network, "alpha_dropout")[0][1:] == (0.5, True)
    assert [args[1:] for args in named_call(network, "dropout")] == [(0.25, True), (0.5, True)]
    assert next(kwargs for target, _, kwargs in calls(network) if "rrelu" in target) == {
        "training": True
    }


def test_evaluation_restores_every_argument() -> None:
    network = captured(Everything(), 3, 6, 6)
    before, code = calls(network), network.code
    set_training(network, True)
    set_training(network, True)
    assert network.code != code
    set_training(network, False)
    set_training(network, False)
    assert calls(network) == before
    assert network.code == code


def test_evaluation_after_training_computes_the_same_bits() -> None:
    torch.manual_seed(0)
    network = captured(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5)), 4)
    inputs = torch.randn(5, 4)
    before = network(inputs)
    statistics = network.get_buffer("1.running_mean")
    with training_mode(network):
        assert not torch.equal(network(inputs), before)
    assert not torch.equal(statistics, torch.zeros(8)), "training updates the running statistics"
    statistics.zero_()
    network.get_buffer("1.running_var").fill_(1)
    assert torch.equal(network(inputs), before)


def test_training_step_equals_the_eager_module() -> None:
    torch.manual_seed(0)
    eager = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    network = captured(copy.deepcopy(eager), 3, 6, 6)
    inputs = torch.randn(5, 3, 6, 6)
    wanted = eager.train()(inputs)
    with training_mode(network):
        assert torch.equal(network(inputs), wanted)
    assert torch.equal(network.get_buffer("1.running_var"), eager.get_buffer("1.running_var"))


def test_mode_returns_to_evaluation_after_an_error() -> None:
    network = captured(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), 4)
    code = network.code
    with pytest.raises(KeyboardInterrupt), training_mode(network):
        raise KeyboardInterrupt
    assert network.code == code


def test_mode_reaches_recurrent_layers_and_graphs_inside_graphs() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(4, 3, num_layers=2, dropout=0.5, batch_first=True)
            self.drop = nn.Dropout(0.5)

        def forward(self, series: Tensor) -> Tensor:
            hidden = self.gru(series)[0]
            with torch.no_grad():
                gate = torch.sigmoid(self.drop(series.mean(2, keepdim=True)))
            return hidden * gate

    with pytest.warns(UserWarning, match="assigned during export"):
        network = captured(Inner(), 6, 4)
    series = torch.randn(2, 6, 4)
    graphs = [module for module in network.modules() if isinstance(module, GraphModule)]
    before = [graph.code for graph in graphs]
    set_training(network, True)
    assert not torch.equal(network(series), network(series))
    changed = [graph.code != code for graph, code in zip(graphs, before, strict=True)]
    assert len(graphs) > 1
    assert all(changed)
    set_training(network, False)
    assert [graph.code for graph in graphs] == before


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        (nn.BatchNorm1d(4), True),
        (nn.LayerNorm(4), False),
        (nn.Identity(), False),
    ],
)
def test_learns_statistics_names_networks_with_batch_norm(norm: nn.Module, expected: bool) -> None:
    assert learns_statistics(captured(nn.Sequential(nn.Linear(4, 4), norm), 4)) is expected


class Constants(nn.Module):
    """Makes tensors on a device while it runs, and views a convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(images)
        shuffled = hidden.view(hidden.shape[0], 2, 2, 4, 4).transpose(1, 2).flatten(1)
        ramp = torch.arange(64, device=images.device, dtype=torch.float32)
        return shuffled * ramp + torch.tensor([0.5])


def test_placed_moves_parameters_constants_and_device_arguments() -> None:
    network = captured(Constants(), 2, 6, 6)
    before = calls(network)
    with placed(network, torch.device("meta")) as placement:
        assert placement.device.type == "meta"
        assert network(torch.empty(3, 2, 6, 6, device="meta")).device.type == "meta"
        assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
        # There is no way back from the meta device, so stand in for the return of the data.
        network.to_empty(device="cpu")
        network.lifted_tensor_0 = torch.tensor([0.5])
    assert calls(network) == before


def test_placed_on_the_cpu_runs_channels_last_and_computes_the_same() -> None:
    torch.manual_seed(0)
    network = captured(Constants(), 2, 6, 6)
    code, images = network.code, torch.randn(3, 2, 6, 6)
    before = network(images)
    with placed(network, torch.device("cpu")) as placement:
        weight = network.get_parameter("conv.weight")
        assert placement.channels_last
        assert weight.is_contiguous(memory_format=torch.channels_last)
        (fitted,) = placement.fit((images,))
        inside = network(fitted)
        assert fitted.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(inside, before)
    assert weight.is_contiguous()
    assert network.code == code
    assert torch.equal(network(images), before)


def test_placed_keeps_the_layout_where_a_view_is_written_to() -> None:
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            hidden = self.conv(images)
            hidden.view(hidden.shape[0], 64).mul_(2)
            return hidden

    network = captured(Aliased(), 2, 6, 6)
    images = torch.randn(3, 2, 6, 6)
    before = network(images)
    with placed(network, torch.device("cpu")) as placement:
        assert not placement.channels_last
        assert torch.equal(network(*placement.fit((images,))), before)


def test_choose_device_explains_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(DeviceName.AUTO) == torch.device("cpu")
    assert choose_device(DeviceName.CPU) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"^--device: cuda needs a GPU .*, got none$") as caught:
        choose_device(DeviceName.CUDA)
    assert "--device cpu" in (caught.value.hint or "")
