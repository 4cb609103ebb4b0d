"""Presets for texts: which tokens each changes, how many, and what it never touches."""

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from prunecli.choices import Augment, TaskName
from prunecli.data import DataSet, Preprocess, Split
from prunecli.data.contents import Beside, Words
from prunecli.recovery.augment import augmentation_for
from prunecli.tasks import TASKS, Labels, Tensors

PAD, CLS, SEP, HIDE, UNKNOWN = range(5)
FIXED, FIRST_WORD = (PAD, CLS, SEP, HIDE), 10
COUNT, LENGTH = 600, 40
PRESETS = [Augment.LIGHT, Augment.STANDARD, Augment.STRONG]
PER_TOKEN = (
    TaskName.TOKEN_CLASSIFICATION,
    TaskName.LANGUAGE_MODELLING,
    TaskName.MASKED_LANGUAGE_MODELLING,
)


def rows(left: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs `[CLS] a.. [SEP] b.. [SEP]`, every word of a row another number: ids, mask, types."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.full((COUNT, LENGTH), PAD, dtype=torch.int32)
    mask, types = torch.zeros(COUNT, LENGTH, dtype=torch.int8), torch.zeros_like(ids).to(torch.int8)
    for row in range(COUNT):
        one, two = torch.randint(1, 19, (2,), generator=generator).tolist()
        first = [CLS, *range(FIRST_WORD, FIRST_WORD + one), SEP]
        second = [*range(FIRST_WORD + 50, FIRST_WORD + 50 + two), SEP]
        whole = torch.tensor([*first, *second], dtype=torch.int32)
        place = slice(LENGTH - len(whole), LENGTH) if left else slice(0, len(whole))
        ids[row, place], mask[row, place] = whole, 1
        types[row, place] = torch.tensor([0] * len(first) + [1] * len(second), dtype=torch.int8)
    return ids, mask, types


def data_of(
    inputs: Tensors,
    task: TaskName = TaskName.CLASSIFICATION,
    beside: bool = True,
    **words: object,
) -> DataSet:
    own = Words(**{"fixed": FIXED, "padding": PAD, "covers": (HIDE, UNKNOWN)} | words)  # type: ignore[arg-type]
    contents = (own, Beside.SEEN, Beside.TEXT) if beside else (own,)
    split = Split("train", inputs[: len(contents)], (torch.arange(len(inputs[0])) % 2,))
    rules = (Preprocess(image=False, dtype=torch.int64),) * len(contents)
    return DataSet(
        TASKS[task],
        split,
        split,
        split,
        rules,
        (Labels(TaskName.CLASSIFICATION, ("a", "b")),),
        (),
        (),
        contents=contents,
    )


def changed(data: DataSet, preset: Augment, seed: int = 0) -> Tensors:
    found = augmentation_for(data, preset)
    assert found is not None
    torch.manual_seed(seed)
    return found.change(data.train.inputs)


def told(data: DataSet, preset: Augment) -> str:
    found = augmentation_for(data, preset)
    assert found is not None
    assert found.what == "texts"
    return found.words


def test_words() -> None:
    data = data_of(rows())
    assert told(data, Augment.LIGHT) == "masking 5% of the tokens"
    assert told(data, Augment.STANDARD) == "leaving out 5% and masking 10% of the tokens"
    assert told(data, Augment.STRONG) == (
        "leaving out 10%, swapping 10% and masking 15% of the tokens"
    )
    bare = data_of(rows(), covers=())
    assert told(bare, Augment.LIGHT) == "replacing 5% of the tokens by others"
    for task in PER_TOKEN:
        assert told(data_of(rows(), task), Augment.STRONG) == (
            "masking 15% of the tokens; none is left out or moved, since targets may belong to "
            "tokens"
        )
        assert told(data_of(rows(), task), Augment.LIGHT) == "masking 5% of the tokens"


def test_nothing_is_changed_unasked() -> None:
    for preset in (Augment.AUTO, Augment.NONE):
        assert augmentation_for(data_of(rows()), preset) is None


@pytest.mark.parametrize("covers", [(HIDE, UNKNOWN), (UNKNOWN,), ()])
def test_light_hides_words_and_nothing_else(covers: tuple[int, ...]) -> None:
    data = data_of(rows(), covers=covers)
    ids, mask, types = data.train.inputs
    after, seen, kinds = changed(data, Augment.LIGHT)
    assert torch.equal(seen, mask)
    assert torch.equal(kinds, types)
    assert after.dtype == ids.dtype
    words, hidden = ids >= FIRST_WORD, after != ids
    assert not bool((hidden & ~words).any())
    if covers:
        assert set(after[hidden].tolist()) == {covers[0]}
    else:
        # Tokens of the batch, as likely as they are frequent; now and then the same one again.
        assert bool((after[hidden] >= FIRST_WORD).all())
        assert len(set(after[hidden].tolist())) > 30
    # Of single words none is hidden: that would leave nothing of the text.
    long = words & (words.sum(1, keepdim=True) > 20)
    assert 0.04 < float(hidden[long].float().mean()) < 0.06


@pytest.mark.parametrize("task", PER_TOKEN)
@pytest.mark.parametrize(("preset", "share"), [(Augment.STANDARD, 0.1), (Augment.STRONG, 0.15)])
def test_tokens_with_targets_stay_in_their_places(
    task: TaskName, preset: Augment, share: float
) -> None:
    data = data_of(rows(), task)
    ids, mask, types = data.train.inputs
    after, seen, kinds = changed(data, preset)
    assert torch.equal(seen, mask)
    assert torch.equal(kinds, types)
    hidden = after != ids
    assert set(after[hidden].tolist()) == {HIDE}
    assert abs(float(hidden[ids >= FIRST_WORD].float().mean()) - share) < 0.02


def without_padding(ids: Tensor, seen: Tensor) -> list[list[int]]:
    return [row[own].tolist() for row, own in zip(ids, seen.bool(), strict=True)]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_standard_leaves_words_out_and_closes_up(left: bool, beside: bool) -> None:
    data = data_of(rows(left), left=left, beside=beside)
    ids, mask, types = rows(left)
    after, *others = changed(data, Augment.STANDARD)
    seen = others[0] if beside else (after != PAD).to(torch.int8)
    # Padding comes after everything else, or before it, and is padding in all inputs.
    run = seen if left else seen.flip(1)
    assert bool((run.diff(dim=1) >= 0).all())
    assert bool((after[seen == 0] == PAD).all())
    gone = 0
    for own, found in zip(without_padding(ids, mask), without_padding(after, seen), strict=True):
        assert [token for token in found if token in (CLS, SEP)] == [CLS, SEP, SEP]
        assert found[0] == CLS
        assert found[-1] == SEP
        # What is left is in its order, but for what is hidden.
        rest = iter(own)
        assert all(any(token in (HIDE, other) for other in rest) for token in found)
        middle = found.index(SEP)
        assert middle > 1
        assert found[middle + 1 :] != [SEP]
        gone += len(own) - len(found)
    words = int((ids >= FIRST_WORD).sum())
    assert 0.035 < gone / words < 0.06
    if beside:
        assert not bool(others[1][seen == 0].any())
        for row in range(COUNT):
            end = int((after[row] == SEP).nonzero()[0])
            kinds = others[1][row]
            assert not bool(kinds[: end + 1].any())
            assert bool(kinds[end + 1 :][seen[row, end + 1 :] == 1].all())
    del types


def test_strong_swaps_words_of_one_text() -> None:
    data = data_of(rows())
    ids, mask, _ = data.train.inputs
    after, seen, _ = changed(data, Augment.STRONG)
    moved = total = 0
    for own, found in zip(without_padding(ids, mask), without_padding(after, seen), strict=True):
        assert set(found) <= {*own, HIDE}
        words = [token for token in found if token >= FIRST_WORD]
        assert len(set(words)) == len(words)
        middle = found.index(SEP)
        # The first text has small numbers, the second large ones: none goes to the other.
        assert max((t for t in found[:middle] if t != HIDE), default=0) < FIRST_WORD + 50
        assert min((t for t in found[middle:] if t >= FIRST_WORD), default=60) >= FIRST_WORD + 50
        moved += sum(one > two for one, two in itertools.pairwise(words))
        total += len(words)
    # Words that come after a later one: a tenth is shuffled, of which not all move.
    assert 0.03 < moved / total < 0.15


@pytest.mark.parametrize("preset", PRESETS)
def test_a_single_word_stays(preset: Augment) -> None:
    ids = torch.tensor([[CLS, FIRST_WORD, SEP, PAD]] * 300)
    data = data_of((ids, (ids != PAD).to(torch.int8), torch.zeros_like(ids)))
    assert torch.equal(changed(data, preset)[0], ids)


@pytest.mark.parametrize("preset", PRESETS)
def test_texts_of_nothing_but_special_tokens_stay(preset: Augment) -> None:
    ids = torch.tensor([[CLS, SEP, PAD]] * 4)
    for covers in ((HIDE,), ()):
        data = data_of((ids,), beside=False, covers=covers)
        assert torch.equal(changed(data, preset)[0], ids)


def test_a_padding_token_that_ends_texts_is_told_by_the_mask() -> None:
    """As in GPT-2, whose padding is the token that ends a text."""
    ids = torch.full((200, 12), SEP)
    ids[:, 0:8] = torch.arange(8) + FIRST_WORD
    mask = torch.zeros(200, 12, dtype=torch.int8)
    mask[:, :9] = 1  # one of these tokens is part of the text
    data = data_of((ids, mask, torch.zeros_like(ids)), fixed=(SEP,), padding=SEP, covers=())
    after, seen, _ = changed(data, Augment.STANDARD)
    length = seen.sum(1)
    assert int(length.max()) == 9
    assert 5 <= int(length.min()) < 9
    for row, count in zip(after, length.tolist(), strict=True):
        assert bool((row[count - 1 :] == SEP).all())
        assert bool((row[: count - 1] >= FIRST_WORD).all())


@pytest.mark.parametrize("preset", PRESETS)
def test_the_seed_decides(preset: Augment) -> None:
    data = data_of(rows())
    before = tuple(item.clone() for item in data.train.inputs)
    one, same, other = (changed(data, preset, seed) for seed in (0, 0, 1))
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one[0], other[0])
    assert all(map(torch.equal, data.train.inputs, before))


def test_the_order_of_inputs_does_not_matter() -> None:
    data = data_of(rows())
    wanted = changed(data, Augment.STRONG)
    turned = dataclasses.replace(
        data,
        train=dataclasses.replace(data.train, inputs=data.train.inputs[::-1]),
        contents=data.contents[::-1],
    )
    assert all(map(torch.equal, changed(turned, Augment.STRONG), wanted[::-1]))


def test_covers_are_in_the_networks_table() -> None:
    words = Words((0, 1, 9), padding=9, covers=(7, 4))
    assert words.within(0) == words.within(10) == words
    assert words.within(9) == Words((0, 1, 9), padding=0, covers=(7, 4))
    assert words.within(7).covers == (4,)
    assert words.within(4).covers == ()
