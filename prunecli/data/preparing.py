"""The user's normalisation: is it possible, and what does it come to.

Stage: data. In: `--mean`, `--std` and what was read. Out: a `Preprocess`. Never guesses a mean.
"""

from prunecli.config import DataConfig
from prunecli.data.records import Preprocess
from prunecli.errors import DataError


def check_normalisation(config: DataConfig, image: bool, channels: int) -> None:
    """Fail before anything is read if `--mean` or `--std` cannot apply.

    Raises:
        DataError: neither one number nor one for each channel, a standard deviation that is not
            positive, or a mean of pixels that were not scaled to 0-1.
    """
    noun = "channel" if image else "feature"
    for flag, numbers in (("--mean", config.mean), ("--std", config.std)):
        if numbers is not None and len(numbers) not in (1, channels):
            wanted = "1 number" if channels == 1 else f"1 or {channels} numbers"
            raise DataError(
                f"{flag}: {wanted} needed ({channels} {noun}{'s' * (channels > 1)}), "
                f"got {len(numbers)}",
                f"give one number for all, or one for each {noun}",
            )
    if any(value <= 0 for value in config.std or ()):
        raise DataError(
            f"--std: must be above 0, got {min(config.std or ()):g}", "for example --std 0.5"
        )
    if image and any(abs(value) > 1 for value in config.mean or ()):
        raise DataError(
            f"--mean: applies to pixels scaled to 0-1, got {max(config.mean or (), key=abs):g}",
            "divide --mean and --std by 255",
        )


def make_preprocess(
    config: DataConfig,
    image: bool,
    stored_shape: tuple[int, ...],
    resized: bool,
    example_shape: tuple[int, ...] | None,
    *,
    scaled: bool = True,
) -> Preprocess:
    """What happens to each batch.

    Args:
        stored_shape: of one example as it was read, `(C, H, W)` for images.
        scaled: `--mean` and `--std` are for this input.

    Raises:
        DataError: as `check_normalisation`.
    """
    if scaled:
        check_normalisation(config, image, stored_shape[0] if stored_shape else 1)
    size = (stored_shape[1], stored_shape[2]) if resized else None
    mean, std = (config.mean or (), config.std or ()) if scaled else ((), ())
    return Preprocess(image, mean, std, size, example_shape)
