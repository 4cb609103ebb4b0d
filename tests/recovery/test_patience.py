"""Early stopping: when a training is given up."""

import dataclasses

import pytest
from tiny_training import SGD, Watcher, mlp, train
from torch.fx import GraphModule

from prunecli.recovery import TrainResult, finetuning
from prunecli.recovery.patience import waited
from prunecli.tasks import CLASSIFICATION, REGRESSION


@pytest.mark.parametrize(
    ("scores", "accuracy", "mse"),
    [
        ([], 0, 0),
        ([0.5], 0, 0),
        ([0.5, 0.6], 0, 1),
        ([0.5, 0.4], 1, 0),
        ([0.5, 0.5, 0.5], 2, 2),
        ([0.5, 0.7, 0.6, 0.7], 2, 3),
        ([0.7, 0.6, 0.5, 0.6], 3, 1),
    ],
)
def test_waiting_ends_with_a_better_score(scores: list[float], accuracy: int, mse: int) -> None:
    assert waited(CLASSIFICATION.metric, scores) == accuracy
    assert waited(REGRESSION.metric, scores) == mse


def scripted(
    monkeypatch: pytest.MonkeyPatch, scores: list[float], patience: int | None, *companions: Watcher
) -> tuple[TrainResult, GraphModule]:
    """A training of 6 epochs whose scores are these, the start's first; where validation is asked,
    it prefers the start."""
    left = {"choose": iter(scores), "validation": iter([1.0, 0.0])}
    monkeypatch.setattr(finetuning, "_score", lambda _, split: next(left[split.name]))
    network = mlp()
    config = dataclasses.replace(SGD, epochs=6, patience=patience)
    return train(network, config, *companions), network


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        pytest.param([0.5, 0.6, 0.5, 0.5, 0.9, 0.9, 0.9], 2, 3, 1, id="stops"),
        pytest.param([0.5, 0.6, 0.5, 0.7, 0.6, 0.6, 0.9], 2, 5, 3, id="starts anew"),
        pytest.param([0.5, 0.6, 0.5, 0.5, 0.9, 0.9, 0.9], 3, 6, 6, id="waits long enough"),
        pytest.param([0.9, 0.6, 0.5, 0.6, 0.6, 0.6, 0.6], 1, 2, 0, id="never better"),
        pytest.param([0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6], 3, 4, 4, id="draws bring nothing"),
        pytest.param([0.5, 0.6, 0.5, 0.5, 0.9, 0.9, 0.9], None, 6, 6, id="without"),
    ],
)
def test_training_stops_when_its_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
    scores: list[float],
    patience: int | None,
    epochs: int,
    best: int,
) -> None:
    result, _ = scripted(monkeypatch, scores, patience)
    assert (len(result.curve), result.best_epoch) == (epochs, best)
    said = f"stopped after epoch {epochs} of 6: {patience} in a row were not better (--patience)"
    assert (said in result.notes) == (epochs < 6)


def test_epochs_that_do_not_count_use_up_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks that grow make scores fall; only what is trained with the last of them is compared."""

    class Growing(Watcher):
        def counts(self, done: int, steps: int) -> bool:
            return done > steps // 2

    scores = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2]
    result, _ = scripted(monkeypatch, scores, 1, Growing())
    assert (len(result.curve), result.best_epoch) == (5, 4)


def test_the_rates_are_those_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, whole = Watcher(), Watcher()
    scripted(monkeypatch, [0.9, *[0.1] * 6], 2, watcher)
    monkeypatch.undo()
    train(mlp(), dataclasses.replace(SGD, epochs=6), whole)
    assert watcher.rates == whole.rates[: len(watcher.rates)]
    assert len(watcher.rates) == len(whole.rates) // 2
