"""Saying why a state dict does not fit a model.

Stage: loading. In: the difference between the keys. Out: one line and a hint. Never loads.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prunecli.loading.factory import Parameters

SHOWN = 3
"""How many keys of each kind a message names."""

CLASS_WORDS = ("class", "label", "categor", "n_out", "num_out", "out_features", "out_dim")
INPUT_WORDS = ("in_ch", "inchan", "input_ch", "in_dim", "in_features", "channels_in", "n_in")
"""Parts of the names that factories give to these arguments."""

PRUNED_MARKS = ("_orig", "_mask")
"""Endings that torch.nn.utils.prune leaves."""


@dataclass(frozen=True)
class Difference:
    """What stands between a state dict and a model.

    Attributes:
        missing: keys of the model that the checkpoint lacks.
        unexpected: keys of the checkpoint that the model lacks.
        reshaped: key, shape in the checkpoint, shape in the model.
        total: how many keys the model has.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    total: int

    @property
    def count(self) -> int:
        """Zero where they match."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)


def explain(difference: Difference, model_name: str, parameters: Parameters) -> tuple[str, str]:
    """Message and hint: the first few keys, and the likely cause.

    Args:
        difference: not empty.
        model_name: the factory.
        parameters: its parameters, to name the one to pass.
    """
    parts = []
    if difference.missing:
        parts.append(_listed(difference.missing, "missing"))
    if difference.unexpected:
        parts.append(_listed(difference.unexpected, "unexpected"))
    if difference.reshaped:
        texts = [
            f"{key} is {held} in the checkpoint, {wanted} in the model"
            for key, held, wanted in difference.reshaped
        ]
        parts.append(_listed(texts, "of another shape"))
    message = f"keys and shapes must match {model_name}, got {'; '.join(parts)}"
    return message, _cause(difference, model_name, parameters)


def _listed(items: Sequence[str], kind: str) -> str:
    shown = ", ".join(items[:SHOWN]) + (", ..." if len(items) > SHOWN else "")
    return f"{len(items)} {kind} ({shown})"


def _cause(difference: Difference, model_name: str, parameters: Parameters) -> str:
    other = f"likely another architecture: check that --model {model_name} builds what was trained"
    if any(key.endswith(PRUNED_MARKS) for key in difference.unexpected):
        return "torch.nn.utils.prune was active: call prune.remove on every layer and save again"
    if prefix := _prefix(difference.unexpected, difference.missing):
        return (
            f"the checkpoint's keys carry the prefix {prefix}: give a factory that builds "
            "the same wrapper, or save the inner model's state dict"
        )
    if prefix := _prefix(difference.missing, difference.unexpected):
        return (
            f"the model's keys carry the prefix {prefix} and the checkpoint's do not: "
            "give a factory that builds the inner model"
        )
    if difference.missing and difference.unexpected:
        return other
    if difference.reshaped and not difference.missing and not difference.unexpected:
        return _size_cause(difference, model_name, parameters) or other
    if difference.missing and not difference.reshaped:
        return f"likely a smaller variant of the architecture: --model {model_name} has more layers"
    if difference.unexpected and not difference.reshaped:
        return f"likely a larger variant of the architecture: --model {model_name} has fewer layers"
    return other


def _prefix(longer: Sequence[str], shorter: Sequence[str]) -> str | None:
    """What stands before most of `shorter` in `longer`, if anything does."""
    wanted = set(shorter)
    found: Counter[str] = Counter()
    for key in longer:
        parts = key.split(".")
        for cut in range(1, len(parts)):
            if ".".join(parts[cut:]) in wanted:
                found[".".join(parts[:cut]) + "."] += 1
    if not found:
        return None
    prefix, hits = found.most_common(1)[0]
    return prefix if 2 * hits > len(wanted) else None


def _size_cause(difference: Difference, model_name: str, parameters: Parameters) -> str | None:
    """A changed number of classes touches only dimension 0, of input channels only dimension 1."""
    for axis, words, noun in ((0, CLASS_WORDS, "classes"), (1, INPUT_WORDS, "input channels")):
        sizes = set()
        for _, held, wanted in difference.reshaped:
            if len(held) != len(wanted) or len(held) <= axis:
                break
            if held[:axis] + held[axis + 1 :] != wanted[:axis] + wanted[axis + 1 :]:
                break
            sizes.add((held[axis], wanted[axis]))
        else:
            if len(sizes) == 1:
                held_size, _ = sizes.pop()
                key, held, wanted = difference.reshaped[0]
                cause = (
                    f"a different number of {noun}: {key} is {held} in the checkpoint, "
                    f"{wanted} in the model"
                )
                name = next((p for p in parameters if any(w in p.lower() for w in words)), None)
                if name is not None:
                    return f"{cause}: try --model-arg {name}={held_size}"
                return f"{cause}: build it so in {model_name}"
    return None
