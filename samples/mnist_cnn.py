"""The classic small convolutional network for MNIST, 1.2 million parameters.

Input: float images (N, 1, 28, 28), scaled to 0-1 and normalised with mean 0.1307 and std 0.3081.
Output: logits (N, 10).
"""

import torch
from torch import nn


class MnistCNN(nn.Module):
    """Two convolutions, one pooling, two linear layers, dropout between them."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout(0.25)
        self.fc1 = nn.Linear(64 * 12 * 12, 128)
        self.dropout2 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.conv2(torch.relu(self.conv1(images))))
        features = self.dropout1(self.pool(features))
        hidden = torch.relu(self.fc1(torch.flatten(features, 1)))
        return self.fc2(self.dropout2(hidden))
