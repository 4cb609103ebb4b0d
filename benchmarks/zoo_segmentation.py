"""Segmentation: torchvision's heads, and UNets with transposed convolutions."""

from functools import partial

from torch import nn

from zoo_entry import Entry, images, package
from zoo_unet import UNet

TORCHVISION = (
    "fcn_resnet50 fcn_resnet101 deeplabv3_resnet50 deeplabv3_resnet101 "
    "deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large"
)

PIXELS = 224


def entries() -> list[Entry]:
    """The UNets, then torchvision's models (without their auxiliary heads, as in use)."""
    return [
        unet(128),
        Entry("unet_groupnorm", partial(UNet, groups=8), images(3, 128, 128)),
        *(
            Entry(name, partial(build, name), images(3, PIXELS, PIXELS))
            for name in TORCHVISION.split()
        ),
    ]


def unet(pixels: int) -> Entry:
    """The UNet of the core set."""
    return Entry("unet", UNet, images(3, pixels, pixels), core=True)


def build(name: str) -> nn.Module:
    """The segmentation model `name` with random weights."""
    models = package("torchvision").models
    model: nn.Module = models.get_model(name, weights=None, weights_backbone=None)
    return model
