"""One model through the whole engine, measured. Run as a program, it is the zoo's worker:

    python benchmarks/zoo_run.py FAMILY NAME RESULT.json BYTES

What is known is stored after each stage, so that a crash loses nothing. BYTES bounds its memory.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import zoo_memory
from prunecli.choices import Criterion, Quantity
from prunecli.errors import ModelError, PrunecliError
from prunecli.export.onnx_file import make_exportable, write_onnx
from prunecli.graph.capture import Captured, capture
from prunecli.graph.cost import CostModel, cost_model
from prunecli.graph.coupling import Coupling, couple
from prunecli.graph.fields import Value
from prunecli.graph.inputs import EXAMPLE_BATCH, Example, positional
from prunecli.graph.walk import Flow, walk
from prunecli.importance.criteria import score_units
from prunecli.removal import Target, UnitsWanted
from prunecli.selection.budget import select, smallest
from prunecli.selection.plan import Plan, kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import Kept, make_kept
from prunecli.surgery.oracle import check
from zoo_check import apart, leaves, onnx_outputs, zero
from zoo_entry import Entry, Inputs, images
from zoo_registry import find
from zoo_row import SHARE, Row, faults, write
from zoo_weights import call, liven

SEED = 0
BATCHES = (1, 3)
LIVEN_BATCH = 4


@dataclass
class Recorder:
    """The row so far, with time and memory per stage."""

    row: Row
    store: Callable[[Row], None] = lambda row: None
    floor_bytes: int = field(default_factory=zoo_memory.resident)

    def note(self, **what: Any) -> None:
        """Add to the row."""
        self.row = replace(self.row, **what)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block and store the row after it."""
        self.note(stage=name)
        self.store(self.row)
        zoo_memory.forget_peak()
        # Time of this process, so that a busy machine does not change the figures much.
        start = time.process_time()
        yield
        seconds = {**self.row.seconds, name: round(time.process_time() - start, 3)}
        peaks = {**self.row.peak_bytes, name: zoo_memory.peak() - self.floor_bytes}
        self.note(seconds=seconds, peak_bytes=peaks)


@dataclass(frozen=True)
class _Analysis:
    """The walk, the coupling and the costs of one network."""

    flow: Flow
    coupling: Coupling
    costs: CostModel


def run(family: str, entry: Entry, store: Callable[[Row], None] = lambda row: None) -> Row:
    """Prune `entry` to half of its MACs and check the result in every way.

    A refusal by the engine ends in the row; any other exception passes through.
    """
    recorder = Recorder(Row(family, entry.name), store)
    try:
        _stages(entry, recorder)
        recorder.note(stage="done")
        recorder.note(why="; ".join(faults(recorder.row)))
    except PrunecliError as error:
        recorder.note(why=f"{type(error).__name__}: {error.message}")
    store(recorder.row)
    return recorder.row


def _stages(entry: Entry, recorder: Recorder) -> None:
    with recorder.stage("build"):
        torch.manual_seed(SEED)
        model = entry.build()
        generator = torch.Generator().manual_seed(SEED)
        liven(model, entry.feed(model, LIVEN_BATCH, generator), generator)
    recorder.note(model_bytes=_bytes(model))
    inputs = entry.feed(model, EXAMPLE_BATCH, generator)
    with recorder.stage("capture"):
        captured = capture(model, _example(inputs))
    recorder.note(captured=True, dynamic_batch=captured.dynamic_batch)
    with recorder.stage("analysis"):
        flow = walk(captured)
        coupling = couple(flow)
        costs = cost_model(captured.network, flow, coupling, EXAMPLE_BATCH)
        analysis = _Analysis(flow, coupling, costs)
    recorder.note(
        unknown=tuple(flow.notes.unknown),
        frozen=tuple(dict.fromkeys(_reason(item) for item in coupling.frozen)),
    )
    with recorder.stage("plan"):
        plan, kept = _plan(captured, analysis, recorder)
        network = compact(captured, kept)
    _check_parameters(network, plan)
    with recorder.stage("oracle"):
        found = check(captured, network, kept)
    recorder.note(
        oracle=found.difference, oracle_inside=found.worst, oracle_precision=found.precision
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with recorder.stage("export"):
            exportable = make_exportable(network, captured)
            write_onnx(exportable, path, {})
        with recorder.stage("onnx"):
            _compare_onnx(entry, model, network, captured.dynamic_batch, path, recorder)
    with recorder.stage("eager"):
        # Last, since it zeroes the model's parameters, which `captured` shares.
        zero(model, plan.tensors)
        _compare_eager(model, network, kept, inputs, recorder)


def _plan(captured: Captured, analysis: _Analysis, recorder: Recorder) -> tuple[Plan, Kept]:
    coupling, costs = analysis.coupling, analysis.costs
    scores = score_units(captured.network, coupling, Criterion.L2, SEED)
    original = costs.evaluate(scores >= 0.0)
    least = smallest(coupling, costs, scores).macs / original.macs if coupling.count else 1.0
    recorder.note(prunable=1.0 - least, macs=original.macs, params=original.params)
    # Where half is out of reach, the nearest that leaves some choice is still worth checking.
    share = SHARE if least <= SHARE else min(least + 0.01, 0.999)
    recorder.note(target=share)
    target = Target(Quantity.MACS, share, None, f"{100 * share:.1f}%")
    rounding = UnitsWanted.round_to
    plan = select(coupling, costs, scores, target, Criterion.L2.value, SEED, rounding)
    recorder.note(
        macs_share=plan.after.macs / plan.before.macs,
        params_share=plan.after.params / plan.before.params,
    )
    return plan, make_kept(analysis.flow, coupling, kept_units(plan, coupling))


def _check_parameters(network: fx.GraphModule, plan: Plan) -> None:
    """What the plan promises is what the network has."""
    found = sum(item.numel() for item in network.parameters())
    if found != round(plan.after.params):
        raise ModelError(f"plan: promises {plan.after.params:.0f} parameters, got {found}")


def _compare_eager(
    model: nn.Module, network: fx.GraphModule, kept: Kept, inputs: Inputs, recorder: Recorder
) -> None:
    # The counter's hooks fail on inputs of modules that want gradients.
    model.requires_grad_(False)
    network.requires_grad_(False)
    with torch.no_grad(), _counter(model) as original:
        expected = leaves(call(model, inputs))
    with torch.no_grad(), _counter(model) as pruned:
        found = leaves(network(*_positional(inputs)))
    counted = original.get_total_flops()
    recorder.note(
        flops_share=pruned.get_total_flops() / counted if counted else None,
        eager=None if _norm_is_cut(kept) else apart(expected, found),
    )


@contextmanager
def _counter(model: nn.Module) -> Iterator[FlopCounterMode]:
    """PyTorch's counter, with fused kernels switched off or made known to it."""

    def attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> int:
        return sdpa_flop_count(query, key, value)

    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={kernel: attention})
    fused = any(isinstance(layer, nn.LSTM) for layer in model.modules())
    with warnings.catch_warnings():
        # Switching oneDNN off makes torch speak of another vendor's GPUs.
        warnings.filterwarnings("ignore", "TF32 acceleration", UserWarning)
        switch = torch.backends.mkldnn.flags(enabled=False) if fused else nullcontext()
        torch.backends.mha.set_fastpath_enabled(False)
        with switch, counter:
            yield counter
        torch.backends.mha.set_fastpath_enabled(True)


def _norm_is_cut(kept: Kept) -> bool:
    """Whether statistics are taken over fewer positions than before."""
    for node, axes in kept.flow.notes.normalised.items():
        value = kept.flow.values[node]
        if not isinstance(value, Value):
            continue
        if any(kept.extent(value, axis) < value.shape[axis] for axis in axes):
            return True
    return False


def _compare_onnx(
    entry: Entry,
    model: nn.Module,
    network: fx.GraphModule,
    dynamic_batch: bool,
    path: Path,
    recorder: Recorder,
) -> None:
    worst, same_shape = 0.0, True
    generator = torch.Generator().manual_seed(SEED + 1)
    batches = BATCHES if dynamic_batch else (EXAMPLE_BATCH,)
    for batch in batches:
        inputs = entry.feed(model, batch, generator)
        with torch.no_grad():
            original = leaves(call(model, inputs))
            expected = leaves(network(*_positional(inputs)))
        worst = max(worst, apart(expected, onnx_outputs(path, inputs)))
        shapes = [[item.shape for item in items] for items in (original, expected)]
        same_shape = same_shape and shapes[0] == shapes[1]
    recorder.note(onnx=worst, same_shape=same_shape, batches=batches)


def _example(inputs: Inputs) -> Example:
    names = tuple(inputs) if isinstance(inputs, dict) else ()
    return replace(positional(_positional(inputs)), names=names)


def _positional(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    return tuple(inputs.values()) if isinstance(inputs, dict) else inputs


def _reason(item: Any) -> str:
    operator = f" ({item.why.operator})" if item.why.operator else ""
    return f"{item.why.reason}{operator}, e.g. {item.layers[0]}"


def _bytes(model: nn.Module) -> int:
    """Parameters and buffers, each storage once."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum({item.data_ptr(): item.numel() * item.element_size() for item in tensors}.values())


def warm_up() -> None:
    """Run a tiny network through everything, so that what is imported on first use is not taken
    for the time and memory of the first model."""
    run("", Entry("tiny", lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), images(8)))


def main(family: str, name: str, result: str, most_bytes: str) -> None:
    """The worker."""
    zoo_memory.limit(int(most_bytes))
    torch.set_num_threads(1)
    entry = find(family, name)
    warm_up()
    run(family, entry, lambda row: write(row, Path(result)))


if __name__ == "__main__":
    main(*sys.argv[1:])
