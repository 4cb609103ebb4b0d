"""Batches: nothing lost, the caller's order, prepared as the formula says."""

import torch

from prunecli.data import Preprocess, Split, batches
from prunecli.tasks import Tensors


def split(count: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 4, 5), generator=generator, dtype=torch.uint8)
    return Split("train", (images,), (torch.arange(count),))


def prepare(inputs: Tensors) -> Tensors:
    return tuple(map(Preprocess(image=True), inputs))


def test_stored_order_and_a_smaller_last_batch() -> None:
    data = split(10)
    found = list(batches(data, prepare, 4, device="cpu"))
    assert [len(targets) for _, (targets,) in found] == [4, 4, 2]
    assert torch.cat([targets for _, (targets,) in found]).tolist() == list(range(10))
    torch.testing.assert_close(torch.cat([inputs for (inputs,), _ in found]), data.inputs[0] / 255)


def test_given_order_may_leave_out_and_repeat() -> None:
    data = split(10)
    order = torch.tensor([7, 7, 9, 0, 3])
    found = list(batches(data, prepare, 2, order=order, device="cpu"))
    assert torch.cat([targets for _, (targets,) in found]).tolist() == order.tolist()
    torch.testing.assert_close(torch.cat([i for (i,), _ in found]), data.inputs[0][order] / 255)


def test_normalisation_by_the_formula() -> None:
    images = split(6).inputs[0]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    prepared = Preprocess(True, mean, std)(images)
    assert prepared.dtype == torch.float32
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(prepared[:, channel].double(), expected, atol=1e-6, rtol=1e-6)


def test_one_number_for_all_channels() -> None:
    images = split(6).inputs[0]
    one, three = Preprocess(True, (0.5,), (0.2,)), Preprocess(True, (0.5,) * 3, (0.2,) * 3)
    torch.testing.assert_close(one(images), three(images))


def test_stored_examples_are_never_changed() -> None:
    stored = torch.ones(4, 3)
    assert Preprocess(False, (1.0,), (2.0,))(stored).eq(0).all()
    assert stored.eq(1).all()


def test_scalars() -> None:
    assert Preprocess(False, (1.0,), (2.0,))(torch.tensor([3.0, 5.0])).tolist() == [1.0, 2.0]
