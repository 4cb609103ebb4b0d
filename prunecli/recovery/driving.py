"""Steps of training as Hugging Face accelerate does them: device, precision, several processes.

Stage: recovery. In: the training configuration, an optimizer. Out: `Driver`, which takes losses
and updates weights. Never sees a network or an example.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from prunecli import crew
from prunecli.choices import Precision
from prunecli.errors import ConfigError
from prunecli.recovery.companion import Memory
from prunecli.recovery.parts import Part, add_up_gradients
from prunecli.recovery.placement import choose_device
from prunecli.recovery.together import Together
from prunecli.tuning import TrainConfig

MIXED: Mapping[Precision, str] = {
    Precision.FP32: "no",
    Precision.BF16: "bf16",
    Precision.FP16: "fp16",
}
"""What accelerate calls it."""

NOT_OURS: Mapping[str, str] = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
"""What `accelerate launch` may ask for, and no captured graph can be trained with."""


@dataclass(frozen=True)
class Driver:
    """What moves the weights.

    Attributes:
        together: how operators see the whole batch; `None` in one process.
    """

    accelerator: Accelerator
    optimizer: torch.optim.Optimizer
    scaled: AcceleratedOptimizer | None
    together: Together | None

    def passing(self, part: Part) -> AbstractContextManager[object]:
        """Around a forward pass of a part of a batch."""
        if self.together is None:
            return nullcontext()
        self.together.part = part
        return self.together

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there."""
        self.accelerator.backward(loss)

    def gather(self) -> None:
        """Make the gradients those of all processes, in the size that they are meant to have."""
        add_up_gradients(_parameters(self.optimizer))
        if self.scaled is not None:
            # After adding up: where one process overflowed, all of them leave out the step.
            self.accelerator.unscale_gradients(self.scaled)

    def step(self) -> None:
        """Update the weights; with fp16, not where a gradient overflowed."""
        if self.scaled is not None:
            self.scaled.step()
        else:
            self.optimizer.step()

    def memory(self) -> Memory:
        """What it knows between two steps: with fp16, the scale of the loss."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else dict(scaler.state_dict())

    def recall(self, memory: Memory) -> None:
        """Go on from there."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(memory))


def driver_for(
    config: TrainConfig, optimizer: torch.optim.Optimizer, device: torch.device
) -> Driver:
    """A driver for one run."""
    # Accelerate keeps these for the whole process; a second run may have another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=MIXED[config.precision], cpu=device.type == "cpu", device_placement=False
    )
    scaled = None
    if accelerator.scaler is not None:
        scaled = accelerator.prepare_optimizer(optimizer, device_placement=False)
    together = Together(config.seed, device) if crew.size() > 1 else None
    return Driver(accelerator, optimizer, scaled, together)


def check_driving(config: TrainConfig) -> None:
    """Refuse what this device, or the launcher's settings, do not go together with.

    Raises:
        ConfigError: see the messages.
    """
    device = choose_device(config.device)
    if config.precision is Precision.FP16 and device.type == "cpu":
        raise ConfigError(
            "--precision: fp16 needs a GPU, got the CPU",
            "use --precision bf16, which needs no scaling of the loss",
        )
    for variable, name in NOT_OURS.items():
        if os.environ.get(variable, "").lower() in ("1", "true"):
            raise ConfigError(
                f"accelerate launch: data parallel is what can be done here, got {name}",
                "launch without it; give --config_file if it comes from accelerate's own",
            )
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", MIXED[config.precision]):
        raise ConfigError(
            f"accelerate launch: --mixed_precision must agree with --precision, got {asked} and "
            f"{config.precision.value}",
            f"use --precision {asked} of prunecli",
        )


def _parameters(optimizer: torch.optim.Optimizer) -> Iterable[nn.Parameter]:
    return (item for group in optimizer.param_groups for item in group["params"])
