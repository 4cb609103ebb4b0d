"""Rules for operators that multiply and sum: linear, matmul, einsum, attention, convolutions."""

import math

import torch
from torch import Tensor

from prunecli.graph.call import (
    Call,
    Contraction,
    frozen,
    merge,
    name_cut,
    pin_value,
    without_axis,
)
from prunecli.graph.fields import Value, labelled_axes

MULTIPLIED = "is multiplied with"

Letters = str
"""One letter per axis, as in einsum."""


def linear(call: Call) -> Value:
    """x (..., I), weight (O, I), bias (O) -> (..., O)."""
    value, weight = call.value("input"), call.value("weight")
    batch = _letters(len(value.shape) - 1)
    out = contract(call, ((value, batch + "I"), (weight, "OI")), batch + "O")
    bias = call.optional("bias")
    return out if bias is None else merge(call, call.shape, (out, bias), "is added to")


def addmm(call: Call) -> Value:
    """bias (O) or (N, O), x (N, I), weight (I, O) -> (N, O)."""
    product = contract(call, ((call.value("mat1"), "NI"), (call.value("mat2"), "IO")), "NO")
    return merge(call, call.shape, (product, call.value("self")), "is added to")


def baddbmm(call: Call) -> Value:
    """self + batch1 (B, N, K) by batch2 (B, K, M)."""
    left, right = call.value("batch1"), call.value("batch2")
    product = contract(call, ((left, "BNK"), (right, "BKM")), "BNM")
    return merge(call, call.shape, (product, call.value("self")), "is added to")


def matmul(call: Call) -> Value:
    """(..., M, K) by (..., K, N); vectors as PyTorch defines them."""
    left, right = call.values()[:2]
    one, two = len(left.shape), len(right.shape)
    row, column = "M" if one > 1 else "", "N" if two > 1 else ""
    batch = _letters(max(one, two) - 2)
    first = batch[len(batch) - max(one - 2, 0) :] + row + "K"
    second = batch[len(batch) - max(two - 2, 0) :] + "K" + column
    return contract(call, ((left, first), (right, second)), batch + row + column)


def einsum(call: Call) -> Value | tuple[Value, ...]:
    """`einsum` with explicit letters; an ellipsis is spelled out."""
    equation = str(call.arguments["equation"]).replace(" ", "")
    operands: list[Value] = list(call.arguments["tensors"])
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    longest = max(
        (
            len(value.shape) - len(term) + 3
            for value, term in zip(operands, terms, strict=True)
            if "..." in term
        ),
        default=0,
    )
    dots = "".join(chr(ord("\u03b1") + place) for place in range(longest))
    spelled = []
    for value, term in zip(operands, terms, strict=True):
        own = len(value.shape) - len(term) + 3 if "..." in term else 0
        spelled.append(term.replace("...", dots[len(dots) - own :]))
    if not arrow:
        text = "".join(spelled)
        output = dots + "".join(
            sorted(x for x in set(text) if text.count(x) == 1 and x not in dots)
        )
    if any(len(set(term)) < len(term) for term in spelled):
        return frozen(call, "takes a diagonal")
    return contract(call, tuple(zip(operands, spelled, strict=True)), output.replace("...", dots))


def attention(call: Call) -> Value:
    """`scaled_dot_product_attention`: q (..., h, L, D), k (..., h, S, D), v (..., h, S, E)."""
    query = call.value("query")
    key, value = _repeated(call, "key"), _repeated(call, "value")
    batch = _letters(len(query.shape) - 2)
    scores = contract(call, ((query, batch + "LD"), (key, batch + "SD")), batch + "LS")
    mask = call.optional("attn_mask")
    if mask is not None:
        scores = merge(call, scores.shape, (scores, mask), "is added to")
    pin_value(call, scores, (-1,), call.why("is normalised over"))
    return contract(call, ((scores, batch + "LS"), (value, batch + "SD")), batch + "LD")


def _repeated(call: Call, name: str) -> Value:
    """Keys and values of grouped-query attention serve several query heads each."""
    value, heads = call.value(name), call.value("query").shape[-3]
    own = value.shape[-3]
    if own == heads or own == 1:
        return value
    axis = len(value.shape) - 3
    fields = tuple(
        field.repeat_interleave(heads // own, axis) if field.shape[axis] > 1 else field
        for field in value.fields
    )
    shape = (*value.shape[:axis], heads, *value.shape[axis + 1 :])
    return Value(shape, fields)


def contract(call: Call, operands: tuple[tuple[Value, Letters], ...], output: Letters) -> Value:
    """Multiply operands and sum over the letters that `output` lacks.

    First the summed letters are tied; what they say about other axes (a head exists while
    anything of it is summed) then meets what the operands say about those.
    """
    extents: dict[str, int] = {}
    for value, letters in operands:
        for letter, extent in zip(letters, value.shape, strict=True):
            extents[letter] = max(extents.get(letter, 1), extent)
    summed = [letter for letter in extents if letter not in output]
    space = output + "".join(summed)
    parts = [_embedded(value, letters, space) for value, letters in operands]
    places = range(len(output), len(space))
    full = tuple(extents[letter] for letter in space)
    common = merge(call, full, tuple(_inside(part, places) for part in parts), MULTIPLIED)
    left = _summed(call, common, places)
    shape = full[: len(output)]
    out = merge(
        call,
        shape,
        tuple(
            _cut(item, len(output)) for item in (*(_outside(part, places) for part in parts), left)
        ),
        MULTIPLIED,
    )
    _count(call, out, common, places, float(math.prod(full)))
    if not call.name.startswith("aten.conv"):
        _name_heads(call, parts, places)
    return out


def _name_heads(call: Call, parts: list[Value], places: range) -> None:
    """A matrix for each head: what the operands share is the heads, the rest of a field that
    spans both the width of a head (`attention @ value`)."""
    shared = [axis for axis in range(places.start) if all(part.shape[axis] > 1 for part in parts)]
    for part in parts:
        for field in part.fields:
            axes = labelled_axes(field)
            if len(axes) > 1 and not _labels_any(field, places):
                for axis in axes:
                    name_cut(call, field, axis, "heads" if axis in shared else "head_dim")


def _embedded(value: Value, letters: Letters, space: Letters) -> Value:
    """The value with its axes in the order of `space`, extent 1 where it has none."""
    order = [letters.index(letter) for letter in space if letter in letters]
    missing = [place for place, letter in enumerate(space) if letter not in letters]

    def spread(item: Tensor) -> Tensor:
        item = item.permute(order)
        for place in missing:
            item = item.unsqueeze(place)
        return item

    shape = [value.shape[letters.index(x)] if x in letters else 1 for x in space]
    return Value(tuple(shape), tuple(spread(field) for field in value.fields))


def _inside(value: Value, places: range) -> Value:
    """What the value says about summed axes. Other axes that this does not label get extent 1:
    they are not this step's business, and must not look unlabelled."""
    fields = tuple(field for field in value.fields if _labels_any(field, places))
    shape = tuple(
        extent if axis in places or _labelled(fields, axis) else 1
        for axis, extent in enumerate(value.shape)
    )
    return Value(shape, fields)


def _outside(value: Value, places: range) -> Value:
    """What the value says besides `_inside`."""
    inside = _inside(value, places).fields
    fields = tuple(field for field in value.fields if not _labels_any(field, places))
    shape = tuple(
        1 if _labelled(inside, axis) else extent for axis, extent in enumerate(value.shape)
    )
    return Value(shape, fields)


def _labels_any(field: Tensor, places: range) -> bool:
    return any(field.shape[place] > 1 for place in places)


def _labelled(fields: tuple[Tensor, ...], axis: int) -> bool:
    return any(field.shape[axis] > 1 for field in fields)


def _summed(call: Call, value: Value, places: range) -> Value:
    fields = []
    for field in value.fields:
        left: Tensor | None = field
        for place in places:
            if left is not None and left.shape[place] > 1:
                for axis in labelled_axes(left):
                    name_cut(call, left, axis, "head_dim" if axis == place else "heads")
                left = without_axis(call, left, place)
        if left is not None:
            fields.append(left)
    shape = tuple(
        extent if _labelled(tuple(fields), axis) else 1 for axis, extent in enumerate(value.shape)
    )
    return Value(shape, tuple(fields))


def _cut(value: Value, rank: int) -> Value:
    """Drop the summed axes, which come last and have extent 1 by now."""
    return Value(
        value.shape[:rank], tuple(field.reshape(field.shape[:rank]) for field in value.fields)
    )


def _count(call: Call, out: Value, common: Value, places: range, macs: float) -> None:
    """Note the work: in proportion to what is left of the result and of the summed axes."""
    fields = [field for field in common.fields if _labels_any(field, places)]
    contracted = fields[0] if fields else None
    blocks = None
    if contracted is not None and len(labelled_axes(contracted)) > 1:
        blocks = torch.squeeze(contracted)
        blocks = blocks.reshape(-1, blocks.shape[-1])
    flat = None if contracted is None else contracted.reshape(-1)
    # Of several axes that are summed over, the others count like axes of the result.
    counted = Value(out.shape, (*out.fields, *fields[1:]))
    call.notes.contractions.append(Contraction(call.node.name, counted, flat, macs, blocks))


def _letters(count: int) -> Letters:
    return "abcdefghijklmnop"[:count]
