"""Reading the trained network: checkpoints, factories, exported programs."""

from prunecli.loading.model import LoadedModel, load_model

__all__ = ["LoadedModel", "load_model"]
