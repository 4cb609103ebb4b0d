"""Flags about what goes: what they become, and every refusal with its words."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunecli.choices import Criterion, Curve, PruneSchedule, Quantity, Scope, Strategy
from prunecli.config import DataConfig, ModelConfig, RunConfig
from prunecli.errors import ConfigError
from prunecli.records import from_plain, to_plain
from prunecli.removal import (
    LayerRule,
    LayersWanted,
    Pattern,
    PatternKind,
    Removal,
    Threshold,
    WeightsWanted,
    fits,
)
from prunecli.shares import Margin
from prunecli.tuning import TrainConfig
from prunecli.wishes import RemovalFlags, read_removal


def read(**flags: Any) -> Removal:
    return read_removal(RemovalFlags(**flags))


def test_nothing_said_is_half_of_the_macs_by_channels() -> None:
    found = read()
    assert found.strategies == (Strategy.STRUCTURED,)
    assert found.units.target is not None
    assert (found.units.target.quantity, found.units.target.share) == (Quantity.MACS, 0.5)
    assert found.criterion(Strategy.STRUCTURED).in_words() == "l2"
    assert found.timing.schedule is PruneSchedule.ONE_SHOT


def test_each_strategy_has_a_target_of_its_own() -> None:
    found = read(
        strategy="layer,structured,weight",
        layers_to_drop="2",
        target_params="1M",
        weight_sparsity="75%",
        criterion=("weight=wanda", "structured=l2:0.5,taylor:0.5"),
    )
    assert found.layers == LayersWanted(count=2)
    assert found.units.target is not None
    assert found.units.target.absolute == 1e6
    assert found.weights == WeightsWanted(0.75)
    assert found.criterion(Strategy.WEIGHT).parts == ((Criterion.WANDA, 1.0),)
    assert found.criterion(Strategy.STRUCTURED).in_words() == "l2:0.5,taylor:0.5"
    assert found.criterion(Strategy.LAYER).in_words() == "similarity"


def test_what_is_compared() -> None:
    found = read(
        strategy="weight",
        threshold="1.5sd",
        scope="isomorphic",
        layer=("layer3.*=70%", "fc=0.2"),
        keep=("conv1,head.*", "stem"),
        pattern="4x1",
    )
    choosing = found.choosing
    assert choosing.threshold == Threshold(1.5, dynamic=True)
    assert choosing.scope is Scope.ISOMORPHIC
    assert choosing.rules == (LayerRule("layer3.*", 0.7), LayerRule("fc", 0.2))
    assert choosing.keep == ("conv1", "head.*", "stem")
    assert found.weights == WeightsWanted(None, Pattern(PatternKind.BLOCK, 4, 1))


def test_when() -> None:
    timing = read(
        strategy="weight",
        schedule="gradual",
        curve="cosine",
        initial="10%",
        begin="5%",
        end="60%",
        every=7,
        regrow="30%",
        dense_epochs=0.5,
        sparse_epochs=1.0,
        penalty="group-lasso",
        penalty_strength=1e-3,
        max_drop="1.5pp",
    ).timing
    assert (timing.curve, timing.initial, timing.begin, timing.end) == (
        Curve.COSINE,
        0.1,
        0.05,
        0.6,
    )
    assert (timing.every, timing.regrow, timing.dense_epochs) == (7, 0.3, 0.5)
    assert timing.largest_drop == Margin(0.015)
    assert read(schedule="iterative").timing.rounds == 3
    assert read(schedule="iterative", rounds=5).timing.rounds == 5
    assert read().timing.rounds == 1


@pytest.mark.parametrize(
    ("pattern", "layer", "fitting"),
    [
        ("layer3", "layer3.0.conv1", True),
        ("layer3.*", "layer3.0.conv1", True),
        ("layer3", "layer30.conv1", False),
        ("*.conv1", "layer3.0.conv1", True),
        ("conv1", "layer3.0.conv1", False),
        ("*", "fc", True),
    ],
)
def test_patterns_match_layers_and_the_modules_that_hold_them(
    pattern: str, layer: str, fitting: bool
) -> None:
    assert fits(pattern, layer) is fitting


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"strategy": "beauty"},
        "--strategy: must be one of structured, neuron, layer, weight, got 'beauty'",
    ),
    (
        {"strategy": "structured,neuron"},
        "--strategy: each kind of thing at most once, got structured,neuron",
    ),
    ({"strategy": "weight,weight"}, "--strategy: each kind of thing at most once"),
    ({"weight_sparsity": "80%"}, "--weight-sparsity: has no effect with --strategy structured"),
    ({"pattern": "2:4"}, "--pattern: has no effect with --strategy structured"),
    ({"layers_to_drop": "1"}, "--layers-to-drop: has no effect with --strategy structured"),
    (
        {"strategy": "weight", "target_macs": "50%"},
        "--target-macs: has no effect with --strategy weight",
    ),
    ({"strategy": "layer", "round_to": 8}, "--round-to: has no effect with --strategy layer"),
    ({"curve": "linear"}, "--curve: has no effect with --schedule one-shot"),
    ({"rounds": 2}, "--rounds: has no effect with --schedule one-shot"),
    ({"penalty": "l1"}, "--penalty: has no effect without sparse training"),
    (
        {"target_macs": "50%", "threshold": "0.3"},
        "target: one is needed, got --target-macs and --threshold",
    ),
    (
        {"strategy": "weight", "weight_sparsity": "50%", "threshold": "0.3"},
        "--weight-sparsity and --threshold exclude each other",
    ),
    (
        {"strategy": "layer", "layers_to_drop": "2", "threshold": "0.3"},
        "--layers-to-drop and --threshold exclude each other",
    ),
    (
        {"strategy": "weight", "weight_sparsity": "50%", "pattern": "2:4"},
        "--weight-sparsity: --pattern 2:4 decides how many weights go",
    ),
    ({"strategy": "weight", "weight_sparsity": "0%"}, "--weight-sparsity: something must go"),
    ({"strategy": "weight", "weight_sparsity": "100%"}, "--weight-sparsity: a share from 0% to"),
    ({"strategy": "weight", "pattern": "4:2"}, "--pattern: N:M keeps N of every M weights"),
    ({"strategy": "weight", "pattern": "0x4"}, "--pattern: a block has at least one row"),
    ({"strategy": "weight", "pattern": "odd"}, "--pattern: unstructured, N:M or ROWSxCOLUMNS"),
    (
        {"strategy": "structured,weight", "threshold": "0.3"},
        "--threshold: serves one strategy, got --strategy structured,weight",
    ),
    (
        {"threshold": "0.3", "schedule": "iterative"},
        "--threshold: is the same in every round, got --schedule iterative",
    ),
    (
        {"strategy": "weight", "threshold": "1sd", "criterion": ("taylor",)},
        "--threshold: 1sd counts standard deviations of the weights",
    ),
    ({"threshold": "-1sd"}, "--threshold: a positive number of standard deviations is needed"),
    ({"threshold": "low"}, "--threshold: a number is needed, got 'low'"),
    (
        {"strategy": "weight", "schedule": "gradual", "regrow": "30%", "pattern": "4x1"},
        "--regrow: exchanges single weights, got --pattern 4x1",
    ),
    ({"criterion": ("l1", "l2")}, "--criterion: --strategy structured has one already"),
    ({"criterion": ("weight=l1",)}, "--criterion: weight is not among the strategies"),
    ({"criterion": ("l1:0,l2:1",)}, "--criterion: every part of a mixture has a positive weight"),
    ({"criterion": ("l1:0.5,l1:0.5",)}, "--criterion: every part of a mixture"),
    ({"layer": ("layer3",)}, "--layer: PATTERN=SHARE is needed, got 'layer3'"),
    ({"layer": ("layer3=120%",)}, "--layer: a share from 0% to less than 100% is needed"),
    (
        {"schedule": "gradual", "begin": "80%", "end": "50%"},
        "--begin: must come before --end, both between 0% and 100%, got 80% and 50%",
    ),
    ({"schedule": "iterative", "rounds": 0}, "--rounds: must be positive, got 0"),
    ({"strategy": "layer", "layers_to_drop": "0"}, "--layers-to-drop: a number of layers or"),
    ({"max_drop": "200"}, "--max-drop: 0 to 100 percentage points are needed, got '200'"),
    ({"calibration_samples": 0}, "--calibration-samples: at least 1 is needed, got 0"),
]


@pytest.mark.parametrize(
    ("flags", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED]
)
def test_refused_in_one_line_with_a_hint(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**flags)
    assert caught.value.message.startswith(message)
    assert caught.value.hint


MODEL = ModelConfig(Path("net.pt"))
DATA = DataConfig(Path("data"))


@pytest.mark.parametrize(
    ("flags", "flag"),
    [
        ({"strategy": "neuron"}, "--criterion activation"),
        ({"criterion": ("taylor",)}, "--criterion taylor"),
        ({"schedule": "iterative"}, "--schedule iterative"),
        ({"strategy": "weight", "dense_epochs": 0.5}, "--dense-epochs"),
        ({"sparse_epochs": 1.0}, "--sparse-epochs"),
        ({"max_drop": "1pp"}, "--max-drop"),
    ],
)
def test_what_looks_at_examples_needs_data(flags: dict[str, Any], flag: str) -> None:
    removal = read(**flags)
    with pytest.raises(ConfigError, match=f"{flag}: looks at examples, got no --data"):
        RunConfig(MODEL, removal)
    RunConfig(MODEL, removal, data=DATA)


def test_schedules_need_training() -> None:
    removal = read(schedule="gradual")
    with pytest.raises(ConfigError, match="--schedule gradual: needs training before"):
        RunConfig(MODEL, removal, data=DATA, train=TrainConfig(epochs=0))
    dense = read(strategy="weight", dense_epochs=2.0)
    with pytest.raises(ConfigError, match="--dense-epochs: needs training before"):
        RunConfig(MODEL, dense, data=DATA, train=TrainConfig(epochs=2))


def test_a_configuration_survives_a_file() -> None:
    removal = read(
        strategy="layer,neuron,weight",
        layers_to_drop="25%",
        keep=("conv1",),
        layer=("fc=10%",),
        criterion=("neuron=apoz:0.25,activation:0.75",),
        schedule="iterative",
        max_drop="1pp",
    )
    config = RunConfig(MODEL, removal, Path("out.onnx"), DATA, command="prunecli prune net.pt")
    assert from_plain(RunConfig, to_plain(config)) == config
    with pytest.raises(ValueError, match="RunConfig has no speed"):
        from_plain(RunConfig, {**to_plain(config), "speed": 1})
    with pytest.raises(ValueError, match="beauty"):
        from_plain(Removal, {**to_plain(replace(removal)), "strategies": ["beauty"]})
