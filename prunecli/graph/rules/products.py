"""Rules for products that are contractions by another name: tensordot, bilinear, distances."""

from prunecli.graph.call import Call, merge, pin_value
from prunecli.graph.fields import Value
from prunecli.graph.rules.contraction import contract

LETTERS = "abcdefghijklmnop"


def tensordot(call: Call) -> Value:
    """self and other, multiplied and summed over `dims_self` and `dims_other`."""
    left, right = call.value("self"), call.value("other")
    one = list(LETTERS[: len(left.shape)])
    two = list(LETTERS[len(one) : len(one) + len(right.shape)])
    for mine, theirs in zip(call.arguments["dims_self"], call.arguments["dims_other"], strict=True):
        two[theirs] = one[mine]
    output = [x for x in one if x not in two] + [x for x in two if x not in one]
    return contract(call, ((left, "".join(one)), (right, "".join(two))), "".join(output))


def inner(call: Call) -> Value:
    """self (..., K) and other (..., K) -> the axes of one, then those of the other."""
    left, right = call.value("self"), call.value("other")
    one = LETTERS[: len(left.shape) - 1]
    two = LETTERS[len(one) : len(one) + len(right.shape) - 1]
    return contract(call, ((left, one + "K"), (right, two + "K")), one + two)


def outer(call: Call) -> Value:
    """Two vectors -> (N, M). Nothing is summed, so no multiplications are counted."""
    left, right = call.value("self"), call.value("vec2")
    out = contract(call, ((left, "N"), (right, "M")), "NM")
    call.notes.contractions.pop()
    return out


def addmv(call: Call) -> Value:
    """bias (N), matrix (N, K), vector (K) -> (N)."""
    product = contract(call, ((call.value("mat"), "NK"), (call.value("vec"), "K")), "N")
    return merge(call, call.shape, (product, call.value("self")), "is added to")


def bilinear(call: Call) -> Value:
    """one (..., I), two (..., J), weight (O, I, J), bias (O) -> (..., O)."""
    one, two = call.value("input1"), call.value("input2")
    batch = LETTERS[: len(one.shape) - 1]
    operands = ((one, batch + "I"), (two, batch + "J"), (call.value("weight"), "OIJ"))
    out = contract(call, operands, batch + "O")
    bias = call.optional("bias")
    return out if bias is None else merge(call, call.shape, (out, bias), "is added to")


def distances(call: Call) -> Value:
    """`cdist`: (..., P, M) and (..., R, M) -> (..., P, R). No multiplications are counted."""
    left, right = call.value("x1"), call.value("x2")
    batch = LETTERS[: max(len(left.shape), len(right.shape)) - 2]
    one, two = (batch[len(batch) + 2 - len(item.shape) :] for item in (left, right))
    out = contract(call, ((left, one + "PM"), (right, two + "RM")), batch + "PR")
    call.notes.contractions.pop()
    return out


def compared(call: Call) -> Value:
    """`cosine_similarity` and `pairwise_distance`: over one axis, which keeps its size."""
    one, two = call.values()
    rank = max(len(one.shape), len(two.shape))
    axis = call.arguments.get("dim", -1) % rank
    why = call.why("is reduced over")
    for value in (one, two):
        if axis - rank + len(value.shape) >= 0:
            pin_value(call, value, (axis - rank,), why)
    shape = tuple(max(pair) for pair in zip(_padded(one, rank), _padded(two, rank), strict=True))
    met = merge(call, shape, (one, two), "is compared with")
    pin_value(call, met, (axis,), why)
    fields = tuple(field for field in met.fields if field.shape[axis] == 1)
    for field in met.fields:
        if field.shape[axis] > 1:
            call.labels.freeze(field, why)
    if len(call.shape) == rank:
        return Value(call.shape, fields)
    kept = [place for place in range(rank) if place != axis]
    return Value(
        call.shape, tuple(field.reshape([field.shape[place] for place in kept]) for field in fields)
    )


def _padded(value: Value, rank: int) -> tuple[int, ...]:
    return (1,) * (rank - len(value.shape)) + value.shape
