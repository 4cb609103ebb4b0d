"""Rules for normalisations: parameters and statistics are tied to the normalised axis."""

from prunecli.graph.call import Call, labels_along, merge, note_blocks
from prunecli.graph.fields import Value
from prunecli.graph.rules.elementwise import on_axis


def channelwise(call: Call) -> Value:
    """Batch and instance norm: every vector belongs to axis 1."""
    value = call.values()[0]
    vectors = tuple(on_axis(item, 1, value.shape) for item in call.values()[1:])
    # Without stored statistics, those of the kept positions are taken over the other axes.
    if call.arguments.get("training", call.arguments.get("use_input_stats")):
        first = 0 if "training" in call.arguments else 2
        axes = tuple(axis for axis in range(first, len(value.shape)) if axis != 1)
        call.notes.normalised[call.node.name] = axes
    return merge(call, call.shape, (value, *vectors), "is normalised with")


def trailing(call: Call) -> Value:
    """Layer and RMS norm over the last axes: statistics are those of the kept positions."""
    out = merge(call, call.shape, call.values(), "is normalised with")
    rank, count = len(out.shape), len(call.arguments["normalized_shape"])
    call.notes.normalised[call.node.name] = tuple(range(rank - count, rank))
    return out


def grouped(call: Call) -> Value:
    """Group norm: whole groups go (exact), or equally many channels of each group."""
    value = call.value("input")
    vectors = tuple(
        on_axis(item, 1, value.shape)
        for item in (call.optional("weight"), call.optional("bias"))
        if item is not None
    )
    out = merge(call, call.shape, (value, *vectors), "is normalised with")
    labels = labels_along(call, out, 1)
    groups = call.arguments["num_groups"]
    if labels is not None and groups > 1:
        note_blocks(call, labels.reshape(groups, -1))
    call.notes.normalised[call.node.name] = (1,)
    return out
