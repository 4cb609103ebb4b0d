"""The rate that is taken where none is given."""

import pytest

from prunecli.choices import OptimizerName
from prunecli.config import TrainConfig
from prunecli.recovery.optimizer import default_lr, peak_lr


@pytest.mark.parametrize(("batch", "factor"), [(32, 1.0), (8, 0.5), (128, 2.0)])
def test_the_default_rate_follows_the_root_of_the_batch(batch: int, factor: float) -> None:
    for optimizer, rate in ((OptimizerName.SGD, 0.01), (OptimizerName.ADAMW, 1e-3)):
        config = TrainConfig(batch_size=batch, optimizer=optimizer)
        assert peak_lr(config) == pytest.approx(rate * factor)


def test_a_given_rate_is_taken_as_it_is() -> None:
    assert peak_lr(TrainConfig(lr=0.3, batch_size=7)) == 0.3


def test_masked_networks_take_twice_the_rate() -> None:
    config = TrainConfig()
    assert default_lr(config, masked=True) == 2 * default_lr(config)
