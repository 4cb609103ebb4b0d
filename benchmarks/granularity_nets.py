"""Networks for digits of 28 x 28 pixels, for `granularities.py`: input (N, 1, 28, 28), output
logits (N, 10). The convolutional one is that of the samples."""

import torch
from torch import nn


class DigitMLP(nn.Module):
    """Three linear layers over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images)
        return logits


class DigitLSTM(nn.Module):
    """Reads an image row by row, as a sequence of 28 vectors; two layers of 192 hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 192, num_layers=2, batch_first=True)
        self.head = nn.Linear(192, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(images.flatten(1, 2))
        logits: torch.Tensor = self.head(states[:, -1])
        return logits
