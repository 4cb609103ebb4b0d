"""How the engine's time and memory grow: plain nets four times as wide and four times as deep,
and a language model of a billion parameters.

    python benchmarks/scaling.py            the plain nets
    python benchmarks/scaling.py --llama    the language model too (about 9 GB of memory)

Each network runs in a process of its own. Seconds are processor time, the fastest of several
runs for the small nets; a stage of a plain net should cost at most about four times as much when
width or depth grow four times (the weights themselves grow sixteen times with the width).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import zoo_memory
from prunecli.choices import Criterion, Quantity, Strategy
from prunecli.graph.capture import capture
from prunecli.graph.cost import cost_model
from prunecli.graph.coupling import couple
from prunecli.graph.inputs import EXAMPLE_BATCH, positional
from prunecli.graph.walk import walk
from prunecli.importance.scores import UnitScores
from prunecli.importance.units import score_units
from prunecli.progress import SilentReporter
from prunecli.removal import Choosing, Target, UnitsWanted, mixture
from prunecli.selection.budget import select
from prunecli.selection.plan import kept_units
from prunecli.surgery.compact import compact
from prunecli.surgery.kept import make_kept
from zoo_entry import package

STAGES = ("capture", "analysis", "plan", "compact")
WIDTH, DEPTH = 128, 64


def plain(width: int, depth: int) -> nn.Module:
    """A chain of convolutions with residual connections, batch norm between."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)
            self.two = nn.Conv2d(width, width, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.two(self.norm(self.one(x)).relu())

    blocks = [Block() for _ in range(depth)]
    return nn.Sequential(nn.Conv2d(3, width, 1), *blocks, nn.Conv2d(width, 3, 1))


def images() -> tuple[torch.Tensor, ...]:
    """A tiny image: the work of the engine does not depend on it."""
    return (torch.randn(EXAMPLE_BATCH, 3, 4, 4),)


def llama() -> nn.Module:
    """The configuration of a model of 1.2 billion parameters, with random weights."""
    transformers = package("transformers")
    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)  # type: ignore[no-any-return]


def tokens() -> tuple[torch.Tensor, ...]:
    """A short text."""
    return (torch.randint(0, 1000, (EXAMPLE_BATCH, 16)),)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[torch.Tensor, ...]], int]] = {
    "plain": (lambda: plain(WIDTH, DEPTH), images, 3),
    "width x4": (lambda: plain(4 * WIDTH, DEPTH), images, 3),
    "depth x4": (lambda: plain(WIDTH, 4 * DEPTH), images, 3),
    "llama 1.2B": (llama, tokens, 1),
}


def run(name: str) -> dict[str, float]:
    """Seconds of each stage and the largest resident memory of all of them."""
    torch.set_num_threads(1)
    build, feed, repeats = CASES[name]
    if name != "plain":
        once(plain(8, 2), images())  # what is imported on first use
    found: dict[str, float] = {}
    model = build()
    found["parameters"] = sum(item.numel() for item in model.parameters())
    zoo_memory.forget_peak()
    for _ in range(repeats):
        for stage, seconds in once(model, feed()).items():
            found[stage] = min(seconds, found.get(stage, seconds))
    found["peak_bytes"] = zoo_memory.peak()
    return found


def once(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Each stage once."""
    seconds: dict[str, float] = {}

    def timed(stage: str, start: float) -> float:
        now = time.process_time()
        seconds[stage] = now - start
        return now

    clock = time.process_time()
    captured = capture(model, positional(inputs))
    clock = timed("capture", clock)
    flow = walk(captured)
    coupling = couple(flow)
    costs = cost_model(captured.network, flow, coupling, captured.batch)
    clock = timed("analysis", clock)
    scores = score_units(
        captured,
        flow,
        coupling,
        Strategy.STRUCTURED,
        mixture(Criterion.L2),
        None,
        0,
        SilentReporter(),
    ).normalised
    target = Target(Quantity.MACS, 0.5, None, "50%")
    both, wanted = UnitScores(scores, scores), UnitsWanted(target)
    plan = select(coupling, costs, both, wanted, Choosing(), "l2", 0)
    clock = timed("plan", clock)
    kept = make_kept(flow, coupling, kept_units(plan, coupling))
    compact(captured, kept)
    timed("compact", clock)
    return seconds


def main() -> None:
    """All cases, each in a process of its own, and how the plain net's grow."""
    parser = argparse.ArgumentParser(description="How time and memory grow with the network.")
    parser.add_argument("--llama", action="store_true", help="a billion parameters too")
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(run(options.case)))
        return
    print(f"{'network':<11} {'params':>8}" + "".join(f"{x:>10}" for x in STAGES) + "      peak")
    base: dict[str, float] = {}
    for name in CASES:
        if name.startswith("llama") and not options.llama:
            continue
        command = [sys.executable, str(Path(__file__)), "--case", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        line = "".join(f"{found[stage]:>9.2f}s" for stage in STAGES)
        memory = found["peak_bytes"] / 2**30
        print(f"{name:<11} {found['parameters'] / 1e6:>7.1f}M{line} {memory:>6.1f} GiB")
        base = base or found
        if "x4" in name:
            grown = "".join(f"{found[stage] / base[stage]:>9.1f}x" for stage in STAGES)
            print(f"{'':<11} {'':>8}{grown}")


if __name__ == "__main__":
    main()
