"""Recurrent networks: classifiers over sequences, an audio net, a sequence-to-sequence encoder."""

from functools import partial

import torch
from torch import Tensor, nn

from zoo_entry import Entry, images

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Classifier(nn.Module):
    """Sequence (N, T, 24) -> classes (N, 10), read off the last step."""

    def __init__(self, kind: str, layers: int, both_ways: bool, projection: int = 0) -> None:
        super().__init__()
        more = {"proj_size": projection} if projection else {}
        self.body = KINDS[kind](24, 128, layers, batch_first=True, bidirectional=both_ways, **more)
        width = (projection or 128) * (2 if both_ways else 1)
        self.head = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        classes: Tensor = self.head(self.body(x)[0][:, -1])
        return classes


class Audio(nn.Module):
    """Waveform features (N, 40, T) -> classes (N, 12): convolutions, then an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(40, 64, 5, padding=2),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Conv1d(64, 96, 5, stride=2, padding=2),
            nn.BatchNorm1d(96),
            nn.ReLU(),
        )
        self.body = nn.LSTM(96, 128, 2, batch_first=True)
        self.head = nn.Linear(128, 12)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.convolutions(x).transpose(1, 2)
        classes: Tensor = self.head(self.body(steps)[0].mean(1))
        return classes


class Encoder(nn.Module):
    """Tokens (N, T) -> states (N, T, 96) and a summary (N, 96), as sequence-to-sequence has it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 96)
        self.body = nn.GRU(96, 128, 2, batch_first=True, bidirectional=True)
        self.states = nn.Linear(256, 96)
        self.summary = nn.Linear(256, 96)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        states, last = self.body(self.embedding(tokens))
        both = torch.cat([last[-2], last[-1]], 1)
        return self.states(states), torch.tanh(self.summary(both))


def _tokens(model: nn.Module, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randint(0, 500, (batch, 20), generator=generator),)


def entries() -> list[Entry]:
    """Three kinds, one and three layers, one and two directions; then the special ones."""
    plain = [
        Entry(
            f"{kind}_{layers}{'_both' if both_ways else ''}",
            partial(Classifier, kind, layers, both_ways),
            images(20, 24),
        )
        for kind in KINDS
        for layers in (1, 3)
        for both_ways in (False, True)
    ]
    return [
        *plain,
        Entry("lstm_projected", partial(Classifier, "lstm", 2, False, 64), images(20, 24)),
        Entry("conv_lstm", Audio, images(40, 50)),
        Entry("seq2seq_encoder", Encoder, _tokens),
    ]
