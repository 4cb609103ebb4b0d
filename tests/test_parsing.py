"""Quantities as people write them, and what is refused with which words."""

import pytest

from prunecli.choices import Quantity, TaskName
from prunecli.config import HeadConfig, TaskConfig
from prunecli.errors import ConfigError
from prunecli.parsing import (
    parse_floats,
    parse_inputs,
    parse_margin,
    parse_model_args,
    parse_ratio,
    parse_shape,
    parse_target,
    parse_task,
)
from prunecli.removal import Target
from prunecli.shares import Margin


@pytest.mark.parametrize(
    ("text", "limit_of_1000"),
    [
        ("50%", 500),
        (" 50 % ", 500),
        ("12.5%", 125),
        ("0.1%", 1),
        ("99.9%", 999),
        ("800", 800),
        ("1.5k", 1_500),
        ("20M", 20_000_000),
        ("20 m", 20_000_000),
        ("4G", 4e9),
        ("4b", 4e9),
        ("1T", 1e12),
        ("2e3", 2_000),
        (".5k", 500),
    ],
)
def test_targets_say_what_stays(text: str, limit_of_1000: float) -> None:
    assert parse_target(Quantity.MACS, text).limit(1000) == pytest.approx(limit_of_1000, rel=1e-12)


@pytest.mark.parametrize("quantity", [Quantity.MACS, Quantity.PARAMS])
@pytest.mark.parametrize("text", ["0%", "100%", "150%", "-5%", "100.0%"])
def test_shares_outside_of_0_to_100_are_refused(quantity: Quantity, text: str) -> None:
    flag = f"--target-{quantity.value}"
    with pytest.raises(ConfigError) as caught:
        parse_target(quantity, text)
    assert caught.value.message == f"{flag}: must lie between 0% and 100%, got '{text}'"
    assert caught.value.hint == (
        f"say what may stay: {flag} 50% keeps at most half; absolute numbers such as 20M work too"
    )


@pytest.mark.parametrize(
    "text", ["", "%", "abc", "nan%", "inf%", "-20M", "20 million", "5MM", "1,000", "0x10", "٣"]
)
def test_targets_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(Quantity.MACS, text)
    wanted = f"--target-macs: a percentage or a number is needed, got {text!r}"
    assert caught.value.message == wanted


def test_absolute_target_below_1_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"an absolute target must be at least 1, got '0\.5'"):
        parse_target(Quantity.MACS, "0.5")


@pytest.mark.parametrize(
    ("text", "left_of_20"), [("0.3", 14), ("30%", 14), ("0.9", 2), ("5e-2", 19)]
)
def test_ratios_say_what_goes(text: str, left_of_20: float) -> None:
    assert parse_ratio(text).limit(20) == left_of_20, "exactly: channels are counted"


@pytest.mark.parametrize("text", ["0", "1", "-0.3", "100%", "30"])
def test_ratios_outside_of_0_to_1_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_ratio(text)
    assert caught.value.message == f"--channel-ratio: must lie between 0 and 1, got '{text}'"
    hint = "say what goes: --channel-ratio 0.3 (or 30%) removes 30% of the channels"
    assert caught.value.hint == hint


def test_ratio_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="--channel-ratio: a ratio is needed, got 'half'"):
        parse_ratio("half")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (parse_target(Quantity.MACS, "50%"), "keep at most 50% of the MACs"),
        (parse_target(Quantity.PARAMS, "33.3%"), "keep at most 33.3% of the parameters"),
        (parse_target(Quantity.MACS, "20M"), "keep at most 20M MACs"),
        (parse_target(Quantity.PARAMS, "1.5k"), "keep at most 1.5k parameters"),
        (parse_ratio("0.3"), "remove 30% of the channels"),
        (parse_ratio("12.5%"), "remove 12.5% of the channels"),
    ],
    ids=lambda value: value.text if isinstance(value, Target) else "",
)
def test_targets_in_words(target: Target, words: str) -> None:
    assert target.in_words() == words


def test_floats() -> None:
    assert parse_floats("--mean", "0.485, 0.456,.406") == (0.485, 0.456, 0.406)
    assert parse_floats("--mean", "-1") == (-1.0,)


@pytest.mark.parametrize("text", ["", "1,,2", "1;2", "a", "nan", "1,inf"])
def test_floats_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_floats("--std", text)
    wanted = f"--std: numbers separated by commas are needed, got {text!r}"
    assert caught.value.message == wanted
    assert caught.value.hint == "for example --std 0.5,0.5,0.5"


@pytest.mark.parametrize("text", ["1,3,32,32", "1x3x32x32", " 1, 3, 32, 32"])
def test_shapes(text: str) -> None:
    assert parse_shape(text) == (1, 3, 32, 32)


@pytest.mark.parametrize("text", ["", "3", "1,3,0", "1,-3", "1,3.5", "a,b", "1,,3", "1,²", "1,3_2"])
def test_shapes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_shape(text)
    assert caught.value.message == f"--input-shape: positive integers are needed, got {text!r}"


def test_model_arguments() -> None:
    assert parse_model_args(("classes=10", "name=a=b", "empty=")) == {
        "classes": "10",
        "name": "a=b",
        "empty": "",
    }
    assert parse_model_args(()) == {}


@pytest.mark.parametrize("pair", ["classes", "=10", "a b=1", "--x=1", "1x=2"])
def test_model_arguments_that_are_none_are_refused(pair: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_model_args((pair,))
    assert caught.value.message == f"--model-arg: key=value is needed, got {pair!r}"


def test_model_argument_given_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="--model-arg: classes is given twice"):
        parse_model_args(("classes=10", "classes=20"))


@pytest.mark.parametrize(
    ("text", "name", "dtype", "axes"),
    [
        ("x=float32[1,3,8,8]", "x", "float32", ((None, 1), (None, 3), (None, 8), (None, 8))),
        ("ids=int64[batch, seq]", "ids", "int64", (("batch", None), ("seq", None))),
        ("batch.wave=float32[n,time=400]", "batch.wave", "float32", (("n", None), ("time", 400))),
    ],
)
def test_inputs(text: str, name: str, dtype: str, axes: tuple[tuple[str, int], ...]) -> None:
    (spec,) = parse_inputs((text,))
    assert (spec.name, spec.dtype) == (name, dtype)
    assert tuple((axis.name, axis.extent) for axis in spec.axes) == axes
    assert spec.in_words() == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1pp", Margin(0.01)),
        ("1", Margin(0.01)),
        ("0", Margin(0.0)),
        ("0.3pp", Margin(0.003)),
        (" 1 pp", Margin(0.01)),
        (" 5% ", Margin(0.05, relative=True)),
        ("0.5%", Margin(0.005, relative=True)),
    ],
)
def test_margins_are_points_or_shares(text: str, found: Margin) -> None:
    for flag in ("--max-drop", "--until-recovered"):
        assert parse_margin(flag, text) == found
    assert parse_margin("--max-drop", found.in_words()) == found


@pytest.mark.parametrize(
    "text", ["", "pp", "%", "-1pp", "101pp", "101%", "200", "nan%", "1pp%", "5%%", "one pp"]
)
def test_no_margin_that_makes_sense(text: str) -> None:
    for flag in ("--max-drop", "--until-recovered"):
        with pytest.raises(ConfigError, match=f"^{flag}: "):
            parse_margin(flag, text)


DIGIT = HeadConfig("digit", TaskName.CLASSIFICATION)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("segmentation", TaskConfig(TaskName.SEGMENTATION)),
        ("digit=classification", TaskConfig(heads=(DIGIT,))),
        (
            "digit=classification:1.0, tilt = regression:0.5",
            TaskConfig(heads=(DIGIT, HeadConfig("tilt", TaskName.REGRESSION, 0.5))),
        ),
        ("my tasks/own.py:Task", TaskConfig(custom="my tasks/own.py:Task")),
        ("/runs/lr=1/own.py:Task", TaskConfig(custom="/runs/lr=1/own.py:Task")),
        ("package.own:Tasks.first", TaskConfig(custom="package.own:Tasks.first")),
    ],
)
def test_tasks(text: str, found: TaskConfig) -> None:
    assert parse_task(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guessing", "--task: one of classification, multilabel, regression"),
        ("", "--task: one of classification"),
        ("own.py:", "--task: one of classification"),
        ("digit=guessing", "OUTPUT=TASK:WEIGHT is needed for each output, got 'digit=guessing'"),
        ("digit=regression:x", "--task: a number is needed, got 'x'"),
        ("digit=regression:0", "--task: weights must be positive, got 0 for digit"),
        ("digit=regression,digit=regression", "--task: every output comes once"),
        ("digit=match", "--task: match is for all outputs together"),
    ],
)
def test_what_is_no_task(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_task(text)
    assert said in caught.value.message
