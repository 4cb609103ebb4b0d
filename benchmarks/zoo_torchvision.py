"""torchvision's classifiers, all of them, with random weights."""

from functools import partial

from torch import nn

from zoo_entry import Entry, images, package

CORE = (
    "alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121 googlenet "
    "inception_v3 mobilenet_v2 mobilenet_v3_small mnasnet1_0 shufflenet_v2_x1_0 squeezenet1_1 "
    "efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny"
)

PIXELS = {"inception_v3": 299}
"""Height and width of the input; 224 for the others."""


def entries() -> list[Entry]:
    """One entry per name that torchvision lists.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    models = package("torchvision").models
    return [entry(name) for name in models.list_models(module=models)]


def entry(name: str, pixels: int | None = None) -> Entry:
    """The classifier `name`, at another input size if asked for."""
    size = pixels or PIXELS.get(name, 224)
    return Entry(name, partial(build, name), images(3, size, size), name in CORE.split())


def build(name: str) -> nn.Module:
    """The classifier `name` with random weights."""
    # These two draw their weights from truncated normals one by one, which takes a minute.
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = package("torchvision").models.get_model(name, weights=None, **arguments)
    return model
