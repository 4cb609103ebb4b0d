"""Quantities as people write them, read into the records of `config`.

Stage: config. In: the text of a flag. Out: a target, numbers, a shape. Never guesses: what is not
understood is an error that shows how the flag is written.
"""

import math
import re

from prunecli.choices import Quantity, TaskName
from prunecli.config import Axis, HeadConfig, InputSpec, TaskConfig
from prunecli.errors import ConfigError
from prunecli.removal import LayerRule, LayersWanted, Pattern, PatternKind, Target, Threshold
from prunecli.shares import Margin, check_share

_SUFFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(r"^([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([kmgbt]?)$", re.IGNORECASE)
_WHOLE = re.compile(r"0*[1-9][0-9]{0,8}")
_INPUT = re.compile(r"([^=\[\]]+)=([a-z0-9]+)\[([^\[\]]*)\]")
DTYPES = ("float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")


def parse_target(quantity: Quantity, text: str) -> Target:
    """Read what may stay: `50%`, or an absolute number such as `20M`.

    Raises:
        ConfigError: not a number, or a share outside 0-100% (both ends excluded).
    """
    flag = f"--target-{quantity.value}"
    hint = (
        f"say what may stay: {flag} 50% keeps at most half; absolute numbers such as 20M work too"
    )
    stripped = text.strip()
    if stripped.endswith("%"):
        share = _to_float(stripped[:-1])
        if share is None:
            raise ConfigError(f"{flag}: a percentage or a number is needed, got {text!r}", hint)
        if not 0.0 < share < 100.0:
            raise ConfigError(f"{flag}: must lie between 0% and 100%, got {text!r}", hint)
        return Target(quantity, share / 100.0, None, stripped)
    match = _NUMBER.match(stripped)
    if match is None:
        raise ConfigError(f"{flag}: a percentage or a number is needed, got {text!r}", hint)
    value = float(match.group(1)) * _SUFFIX[match.group(2).lower()]
    if value < 1.0:
        raise ConfigError(f"{flag}: an absolute target must be at least 1, got {text!r}", hint)
    return Target(quantity, None, value, stripped)


def parse_ratio(text: str) -> Target:
    """Read `--channel-ratio`: the share of channels that goes, `0.3` or `30%`.

    Raises:
        ConfigError: not a number, or outside 0-1 (both ends excluded).
    """
    flag = "--channel-ratio"
    hint = f"say what goes: {flag} 0.3 (or 30%) removes 30% of the channels"
    stripped = text.strip()
    value = _to_float(stripped[:-1] if stripped.endswith("%") else stripped)
    if value is None:
        raise ConfigError(f"{flag}: a ratio is needed, got {text!r}", hint)
    ratio = value / 100.0 if stripped.endswith("%") else value
    if not 0.0 < ratio < 1.0:
        raise ConfigError(f"{flag}: must lie between 0 and 1, got {text!r}", hint)
    return Target(Quantity.CHANNELS, 1.0 - ratio, None, stripped)


def parse_share(flag: str, text: str, *, top: bool = False) -> float:
    """Read a share such as `70%` or `0.7`, from 0 to less than 1, or up to 1 with `top`.

    Raises:
        ConfigError: not a number, or outside.
    """
    stripped = text.strip()
    value = parse_number(flag, stripped.removesuffix("%"))
    share = value / 100.0 if stripped.endswith("%") else value
    check_share(flag, share, top=top)
    return share


def parse_number(flag: str, text: str) -> float:
    """Read a finite number.

    Raises:
        ConfigError: it is none.
    """
    value = _to_float(text)
    if value is None:
        raise ConfigError(f"{flag}: a number is needed, got {text!r}", f"e.g. {flag} 0.5")
    return value


def parse_floats(flag: str, text: str) -> tuple[float, ...]:
    """Read `0.485,0.456,0.406`.

    Raises:
        ConfigError: a part is not a number.
    """
    values = [_to_float(part) for part in text.split(",")]
    if any(value is None for value in values):
        raise ConfigError(
            f"{flag}: numbers separated by commas are needed, got {text!r}",
            f"for example {flag} 0.5,0.5,0.5",
        )
    return tuple(value for value in values if value is not None)


def parse_names(flag: str, text: str) -> tuple[str, ...]:
    """Read `a,b,c`.

    Raises:
        ConfigError: an empty name, or one that is given twice.
    """
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(
            f"{flag}: different names separated by commas are needed, got {text!r}",
            f"e.g. {flag} a,b",
        )
    return names


def parse_shape(text: str) -> tuple[int, ...]:
    """Read `--input-shape 1,3,32,32`; the first number is the batch.

    Raises:
        ConfigError: fewer than two numbers, or one that is not a positive integer.
    """
    parts = text.replace("x", ",").split(",")
    hint = "for example --input-shape 1,3,224,224 (batch, channels, height, width)"
    if len(parts) < 2 or not all(_WHOLE.fullmatch(part.strip()) for part in parts):
        raise ConfigError(f"--input-shape: positive integers are needed, got {text!r}", hint)
    return tuple(int(part) for part in parts)


def parse_inputs(texts: tuple[str, ...]) -> tuple[InputSpec, ...]:
    """Read repeated `--input name=dtype[shape]`, such as `input_ids=int64[batch,seq]`.

    An axis is a number, a name (free), or `name=number` (free, tried with that extent).

    Raises:
        ConfigError: not of that form, an unknown dtype, or a name given twice.
    """
    found: dict[str, InputSpec] = {}
    for text in texts:
        spec = _parse_input(text)
        if spec.name in found:
            raise ConfigError(f"--input: {spec.name} is given twice", "keep one of them")
        found[spec.name] = spec
    return tuple(found.values())


def _parse_input(text: str) -> InputSpec:
    hint = (
        "for example --input 'input_ids=int64[batch,seq]' or --input 'image=float32[1,3,224,224]'"
    )
    match = _INPUT.fullmatch(text.strip())
    name, dtype, shape = match.groups() if match is not None else ("", "", "")
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"--input: name=dtype[shape] is needed, got {text!r}", hint)
    if dtype not in DTYPES:
        raise ConfigError(
            f"--input {name}: one of {', '.join(DTYPES)} is needed, got {dtype!r}", hint
        )
    axes = tuple(_parse_axis(name, part.strip(), hint) for part in shape.split(","))
    free = [axis.name for axis in axes if axis.name is not None]
    if len(set(free)) < len(free):
        raise ConfigError(
            f"--input {name}: axes must have different names, got {shape!r}",
            "call them seq and seq2, for example",
        )
    return InputSpec(name, dtype, axes)


def _parse_axis(name: str, text: str, hint: str) -> Axis:
    word, equals, extent = text.partition("=")
    if not equals and _WHOLE.fullmatch(word):
        return Axis(None, int(word))
    if word.strip().isidentifier() and (not equals or _WHOLE.fullmatch(extent.strip())):
        return Axis(word.strip(), int(extent) if equals else None)
    raise ConfigError(
        f"--input {name}: an axis is a number, or a name where it is free, got {text!r}", hint
    )


def parse_model_args(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read repeated `--model-arg key=value`.

    Raises:
        ConfigError: a pair without `=`, or with an empty or repeated key.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(
                f"--model-arg: key=value is needed, got {pair!r}", "e.g. --model-arg num_classes=10"
            )
        if key in found:
            raise ConfigError(f"--model-arg: {key} is given twice", "keep one of them")
        found[key] = value
    return found


def parse_threshold(text: str) -> Threshold:
    """Read `0.3` (what is at or below it goes) or `1.5sd` (in standard deviations, per layer).

    Raises:
        ConfigError: neither.
    """
    stripped = text.strip()
    dynamic = stripped.endswith("sd")
    value = parse_number("--threshold", stripped.removesuffix("sd"))
    if dynamic and value <= 0:
        raise ConfigError(
            f"--threshold: a positive number of standard deviations is needed, got {text!r}",
            "e.g. --threshold 1.5sd",
        )
    return Threshold(value, dynamic)


def parse_rule(text: str) -> LayerRule:
    """Read `layer3.*=70%`: that share of the matching layers goes.

    Raises:
        ConfigError: not of that form.
    """
    pattern, equals, share = text.partition("=")
    if not equals or not pattern.strip():
        raise ConfigError(
            f"--layer: PATTERN=SHARE is needed, got {text!r}",
            "say what goes: --layer 'layer3.*=70%'",
        )
    return LayerRule(pattern.strip(), parse_share("--layer", share))


def parse_pattern(text: str) -> Pattern:
    """Read `unstructured`, `2:4` or `4x1`.

    Raises:
        ConfigError: none of them.
    """
    stripped = text.strip()
    if stripped == PatternKind.UNSTRUCTURED.value:
        return Pattern()
    for sign, kind in ((":", PatternKind.N_OF_M), ("x", PatternKind.BLOCK)):
        match = re.fullmatch(rf"(\d{{1,6}}){sign}(\d{{1,6}})", stripped)
        if match is not None:
            return Pattern(kind, int(match.group(1)), int(match.group(2)))
    raise ConfigError(
        f"--pattern: unstructured, N:M or ROWSxCOLUMNS is needed, got {text!r}",
        "e.g. --pattern 2:4 (two of every four inputs stay) or --pattern 4x1",
    )


def parse_layers(text: str) -> LayersWanted:
    """Read `--layers-to-drop`: a number of layers, or a share of them.

    Raises:
        ConfigError: neither.
    """
    if text.strip().endswith("%"):
        return LayersWanted(share=parse_share("--layers-to-drop", text))
    if not re.fullmatch(r"0*[1-9]\d{0,6}", text.strip()):
        raise ConfigError(
            f"--layers-to-drop: a number of layers or a share is needed, got {text!r}",
            "e.g. --layers-to-drop 2, or --layers-to-drop 25%",
        )
    return LayersWanted(count=int(text))


def parse_margin(flag: str, text: str) -> Margin:
    """Read `--max-drop` and `--until-recovered`: points, `1pp` or `1`, or a share of what the
    original scores, `5%`.

    Raises:
        ConfigError: not a number from 0 to 100.
    """
    stripped = text.strip()
    relative = stripped.endswith("%")
    value = parse_number(flag, stripped.removesuffix("%" if relative else "pp"))
    if not 0 <= value <= 100:
        what = "percent of the score" if relative else "percentage points"
        raise ConfigError(
            f"{flag}: 0 to 100 {what} are needed, got {text!r}",
            f"e.g. {flag} 1pp (points), or {flag} 5% (of what the original scores)",
        )
    return Margin(value / 100, relative)


def parse_task(text: str) -> TaskConfig:
    """Read `--task`: `regression`, `digit=classification:1.0,angle=regression:0.5`, or
    `FILE.py:Task`.

    Raises:
        ConfigError: none of them.
    """
    stripped = text.strip()
    if stripped in tuple(TaskName):
        return TaskConfig(TaskName(stripped))
    _, colon, end = stripped.rpartition(":")
    # A path may hold "=", as several outputs do.
    named = ".py:" in stripped or "=" not in stripped
    if colon and named and end.replace(".", "_").isidentifier():
        return TaskConfig(custom=stripped)
    if "=" in stripped:
        return TaskConfig(heads=tuple(_head(part) for part in stripped.split(",")))
    raise ConfigError(f"--task: {_TASKS}, got {text!r}", _TASK_HINT)


_TASKS = f"one of {', '.join(TaskName)}, several by output, or FILE.py:Task is needed"
_TASK_HINT = "e.g. --task segmentation, --task 'digit=classification:1.0,angle=regression:0.5'"


def _head(text: str) -> HeadConfig:
    """`digit=classification:1.0`; the weight may be left out."""
    name, equals, rest = (part.strip() for part in text.partition("="))
    kind, colon, weight = (part.strip() for part in rest.partition(":"))
    if not name or not equals or kind not in tuple(TaskName):
        raise ConfigError(
            f"--task: OUTPUT=TASK:WEIGHT is needed for each output, got {text.strip()!r}",
            _TASK_HINT,
        )
    return HeadConfig(name, TaskName(kind), parse_number("--task", weight) if colon else 1.0)


def _to_float(text: str) -> float | None:
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None
