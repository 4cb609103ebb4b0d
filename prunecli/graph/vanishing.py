"""Which values are zero wherever they lose something.

Stage: graph. In: a call and its result. Out: yes or no. A channel whose weights are set
to zero is zero until something makes a number of nothing (a sigmoid, an added constant). Only
while it is zero does a sum over channels not notice that it has gone.
"""

from collections.abc import Callable, Iterable

from prunecli.graph.call import Call
from prunecli.graph.fields import Value, aligned, labelled_axes

Test = Callable[[Call, Value], bool]


def vanishing(call: Call, result: Value) -> bool:
    """Whether it can be shown of this result of the call."""
    test = _TESTS.get(call.name.removeprefix("aten."))
    return test is not None and bool(result.fields) and test(call, result)


def _first(call: Call, result: Value) -> bool:
    """Zero is kept, or moved about: what holds of the operand holds of the result."""
    return call.values()[0].vanishes


def _repeated(call: Call, result: Value) -> bool:
    """`expand`, `repeat`: an axis over which something is repeated can shrink with what it meets,
    but what was repeated there is no zero."""
    return call.values()[0].vanishes and _covers(result, call.values()[:1])


def _power(call: Call, result: Value) -> bool:
    exponent = call.arguments["exponent"]
    return call.values()[0].vanishes and isinstance(exponent, (int, float)) and exponent > 0


def _limits(call: Call, result: Value) -> bool:
    """`clamp`, `hardtanh`: zero must lie between the limits."""
    given = [call.arguments.get(name) for name in ("min", "min_val", "max", "max_val")]
    low, high = given[:2], given[2:]
    return (
        call.values()[0].vanishes
        and all(item is None or (isinstance(item, (int, float)) and item <= 0) for item in low)
        and all(item is None or (isinstance(item, (int, float)) and item >= 0) for item in high)
    )


def _all(call: Call, result: Value) -> bool:
    """Sums: every operand is zero there."""
    values = call.values()
    scalars = [call.arguments[name] for name in ("other",) if name in call.arguments]
    return all(isinstance(item, Value) for item in scalars) and all(
        value.vanishes and _covers(result, [value]) for value in values
    )


def _any(call: Call, result: Value) -> bool:
    """Products: for all that can go of the result, some operand is zero there."""
    return _covers(result, [value for value in call.values() if value.vanishes])


def _divided(call: Call, result: Value) -> bool:
    """Unless it is zero by zero, which a divisor of which nothing goes cannot be."""
    dividend, divisor = call.values()[0], call.arguments["other"]
    whole = not isinstance(divisor, Value) or not divisor.fields
    return dividend.vanishes and whole and _covers(result, [dividend])


def _joined(call: Call, result: Value) -> bool:
    return all(value.vanishes or not value.fields for value in call.values())


def _weighted(call: Call, result: Value) -> bool:
    """Convolutions and linear layers: rows of the weight, and the bias, are zero."""
    weight, bias = call.value("weight"), call.optional("bias")
    channel = len(result.shape) - (len(weight.shape) - 1)
    own = all(labelled_axes(field) == (channel,) for field in result.fields)
    return own and weight.vanishes and (bias is None or bias.vanishes)


def _looked_up(call: Call, result: Value) -> bool:
    return call.value("weight").vanishes


def _normalised(call: Call, result: Value) -> bool:
    """Norms: what can go of the result is scaled by zero and shifted by zero."""
    vectors = [call.optional(name) for name in ("weight", "bias")]
    given = [item for item in vectors if item is not None]
    rank = len(result.shape)
    count = len(call.arguments.get("normalized_shape", ()))
    axes = set(range(rank - count, rank)) if count else {1}
    own = all(set(labelled_axes(field)) <= axes for field in result.fields)
    return own and vectors[0] is not None and all(item.vanishes for item in given)


def _padded(call: Call, result: Value) -> bool:
    constant = call.arguments.get("mode", "constant") == "constant"
    return call.values()[0].vanishes and not (constant and call.arguments.get("value"))


def _attended(call: Call, result: Value) -> bool:
    """Sums of values: zero where those are. Tokens of the query are another matter."""
    tokens = len(result.shape) - 2
    own = all(tokens not in labelled_axes(field) for field in result.fields)
    # One head of values that all queries share is there for those that go, too.
    return own and call.value("value").vanishes and _covers(result, [call.value("value")])


def _multiplied(call: Call, result: Value) -> bool:
    return all(value.vanishes for value in call.values() if value.fields)


def _covers(result: Value, operands: Iterable[Value]) -> bool:
    """Whether each field of the result is that of one of the operands too."""
    rank = len(result.shape)
    known = [
        set(labelled_axes(aligned(field, rank))) for value in operands for field in value.fields
    ]
    return all(any(set(labelled_axes(field)) <= axes for axes in known) for field in result.fields)


_BY_TEST: tuple[tuple[Test, str], ...] = (
    (
        _first,
        "relu relu6 leaky_relu elu celu selu gelu silu mish tanh hardswish hardshrink softshrink "
        "abs neg square sqrt sin tanh erf sign dropout feature_dropout contiguous clone detach "
        "alias to _to_copy type_as glu prelu view reshape _unsafe_view permute transpose t squeeze "
        "unsqueeze flatten unflatten pixel_unshuffle pixel_shuffle flip roll narrow split "
        "split_with_sizes chunk slice select unbind channel_shuffle sum mean norm "
        "linalg_vector_norm amax amin avg_pool1d avg_pool2d max_pool1d max_pool2d "
        "adaptive_avg_pool1d adaptive_avg_pool2d upsample_nearest2d "
        "upsample_bilinear2d upsample_bicubic2d",
    ),
    (_repeated, "expand repeat"),
    (_power, "pow"),
    (_limits, "clamp hardtanh"),
    (_all, "add sub"),
    (_any, "mul"),
    (_divided, "div"),
    (_joined, "cat stack"),
    (_padded, "pad constant_pad_nd"),
    (_weighted, "linear conv1d conv2d conv3d"),
    (_looked_up, "embedding"),
    (_normalised, "batch_norm layer_norm rms_norm group_norm"),
    (_attended, "scaled_dot_product_attention"),
    (_multiplied, "matmul bmm mm"),
)

_TESTS: dict[str, Test] = {name: test for test, names in _BY_TEST for name in names.split()}
