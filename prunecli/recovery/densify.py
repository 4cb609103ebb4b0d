"""A last dense phase: masks are lifted, and their weights return for good.

Stage: recovery. In: a companion that holds masks, and how long the dense phase is. Out: a
companion under which the network ends dense. Never masks anything itself.
"""

from dataclasses import replace

from torch import Tensor

from prunecli.errors import ConfigError
from prunecli.recovery.companion import Memory, Setting, State
from prunecli.recovery.gradual import Gradual
from prunecli.recovery.masking import KeepMasks


class DenseAtEnd:
    """Dense-sparse-dense training (Han et al. 2017, arXiv:1607.04381): `sparse` accompanies the
    first steps, as if there were no others, and the rest is trained without masks.

    Weights return at zero. Only weights of the dense phase count.
    """

    def __init__(self, sparse: KeepMasks | Gradual, share: float) -> None:
        """`share`: of all steps that are dense."""
        self._sparse, self._share = sparse, share
        self._lifted_at = 0
        self._lifted = False

    @property
    def masks(self) -> dict[str, Tensor]:
        """None once they have been lifted."""
        return {} if self._lifted else self._sparse.masks

    def begin(self, setting: Setting) -> None:
        """Divide the steps.

        Raises:
            ConfigError: there are too few of them.
        """
        dense = max(1, round(self._share * setting.steps))
        if dense >= setting.steps:
            raise ConfigError(
                "--dense-epochs: some of the training must go before the dense phase, got "
                f"{dense} dense of {setting.steps} steps",
                "raise --epochs or lower --dense-epochs",
            )
        self._lifted_at, self._lifted = setting.steps - dense, False
        self._sparse.begin(replace(setting, steps=self._lifted_at))

    def penalty(self) -> Tensor | None:
        """None."""
        return None

    def before_step(self, step: int, steps: int) -> None:
        """Once the masks are lifted nothing asks for them again."""
        self._lifted = self._lifted or step >= self._lifted_at
        if not self._lifted:
            self._sparse.before_step(step, self._lifted_at)

    def after_step(self, step: int, steps: int) -> None:
        """As before the step."""
        if not self._lifted:
            self._sparse.after_step(step, self._lifted_at)

    def counts(self, done: int, steps: int) -> bool:
        """Once a step was done without masks."""
        return done > self._lifted_at

    def snapshot(self) -> State:
        """Nothing: what counts has no masks."""
        return {}

    def restore(self, state: State) -> None:
        """The kept weights are dense."""

    def memory(self) -> Memory:
        """Whether the masks were lifted, and all about them."""
        return {"lifted": self._lifted, "sparse": dict(self._sparse.memory())}

    def recall(self, memory: Memory) -> None:
        """The masks hold again, or no longer."""
        self._lifted = memory["lifted"]
        self._sparse.recall(memory["sparse"])
