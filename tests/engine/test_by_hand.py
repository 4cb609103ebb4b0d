"""Attention and language models, pruned, against their equations on what the plan keeps.

Every expectation is written out here, head by head, from the original weights and the plan's
indices. Nothing of the engine is used for it: no masks, no compact network, no oracle.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from engine_harness import Pruned, analyse_captured, assert_same, macs, prune, shaken
from torch import Tensor, nn

from prunecli.choices import Criterion
from prunecli.graph.capture import capture
from prunecli.graph.inputs import positional
from prunecli.selection.plan import Plan

SEEDS = range(4)


def pruned(module: nn.Module, example: Tensor, seed: int, share: float = 0.5) -> Pruned:
    found = analyse_captured(capture(module, positional((example,))))
    assert not found.flow.notes.unknown
    made = prune(found, macs(share), Criterion.RANDOM, seed)
    assert made.plan.after.macs <= share * made.plan.before.macs
    return made


def kept(plan: Plan, name: str, axis: int, size: int) -> list[int]:
    """Original indices that stay; all where the plan says nothing."""
    return list(plan.tensors.get(name, {}).get(axis, range(size)))


def by_head(rows: list[int], width: int) -> dict[int, list[int]]:
    """Kept rows of a projection, as head -> its kept channels."""
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(row // width, []).append(row % width)
    return found


def attended(q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | float = 0.0) -> Tensor:
    """One head, written out: (T, D), (S, D), (S, E) -> (T, E)."""
    pairs = q @ k.mT * scale + bias
    weights = torch.exp(pairs - pairs.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True) @ v


class GroupedQuery(nn.Module):
    """Six query heads over two key and value heads of width 4; tokens (N, T, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(10, 24)
        self.q, self.k, self.v = nn.Linear(24, 24), nn.Linear(24, 8), nn.Linear(24, 8)
        self.o = nn.Linear(24, 24)
        self.b = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        q, k, v = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        seen = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.b(x + self.o(seen.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_grouped_query_block(seed: int) -> None:
    net = shaken(GroupedQuery())
    made = pruned(net, torch.randn(2, 6, 10), seed)
    plan = made.plan
    width = kept(plan, "a.weight", 0, 24)
    queries = by_head(kept(plan, "q.weight", 0, 24), 4)
    keys = by_head(kept(plan, "k.weight", 0, 8), 4)
    values = by_head(kept(plan, "v.weight", 0, 8), 4)
    columns = by_head(kept(plan, "o.weight", 1, 24), 4)
    # As many queries for every key that stays, and every query with its own key's channels.
    assert {head: queries[head] for head in queries} == {head: keys[head // 3] for head in queries}
    assert len(queries) % len(keys) == 0
    x = torch.randn(3, 7, 10)
    with torch.no_grad():
        found = made.network(x)
        for one, result in zip(x, found, strict=True):
            hidden = torch.relu(one @ net.a.weight.T + net.a.bias)[:, width]
            total = hidden.new_zeros(7, 24)
            for head, dims in queries.items():
                own = head // 3
                q = projected(net.q, hidden, width, [4 * head + d for d in dims])
                k = projected(net.k, hidden, width, [4 * own + d for d in keys[own]])
                v = projected(net.v, hidden, width, [4 * own + d for d in values[own]])
                assert columns[head] == values[own]
                total += (
                    attended(q, k, v, 0.5)
                    @ net.o.weight[:, [4 * head + d for d in columns[head]]].T
                )
            total = (total + net.o.bias)[:, width] + hidden
            assert_same(total @ net.b.weight[:, width].T + net.b.bias, result)


def projected(layer: nn.Linear, x: Tensor, columns: list[int], rows: list[int]) -> Tensor:
    """`layer` on the kept columns, kept rows only."""
    return x @ layer.weight[rows][:, columns].T + layer.bias[rows]


class ShiftedWindow(nn.Module):
    """Windows of 2 x 2 of a 4 x 4 image, shifted by one, with a bias per head and offset.

    With `whole`, a softmax over their channels holds heads together.
    """

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.a = nn.Conv2d(3, 24, 1)
        self.qkv, self.o = nn.Linear(24, 72), nn.Linear(24, 24)
        self.table = nn.Parameter(torch.randn(9, 4))
        self.register_buffer("offsets", offsets())
        self.register_buffer("mask", crossing())
        self.b = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x)).permute(0, 2, 3, 1)
        batch = x.shape[0]
        moved = torch.roll(x, (-1, -1), (1, 2)).view(batch, 2, 2, 2, 2, 24)
        windows = moved.transpose(2, 3).reshape(batch * 4, 4, 24)
        qkv = self.qkv(windows).reshape(batch * 4, 4, 3, 4, 6).permute(2, 0, 3, 1, 4)
        qkv = qkv.softmax(-1) if self.whole else qkv
        q, k, v = qkv[0] * 6**-0.5, qkv[1], qkv[2]
        pairs = q @ k.mT + self.table[self.offsets.view(-1)].view(4, 4, 4).permute(2, 0, 1)
        pairs = pairs.view(batch, 4, 4, 4, 4) + self.mask[None, :, None]
        seen = pairs.view(-1, 4, 4, 4).softmax(-1) @ v
        seen = self.o(seen.transpose(1, 2).reshape(batch * 4, 4, 24))
        seen = seen.view(batch, 2, 2, 2, 2, 24).transpose(2, 3).reshape(batch, 4, 4, 24)
        return self.b(x + torch.roll(seen, (1, 1), (1, 2)))


def offsets() -> Tensor:
    """Row of the table for every pair of places in a window."""
    places = [(row, column) for row in range(2) for column in range(2)]
    return torch.tensor([[3 * (r - s + 1) + (c - d + 1) for s, d in places] for r, c in places])


def crossing() -> Tensor:
    """(windows, 4, 4): -100 where the shift has put pixels from opposite borders together."""
    part = [0, 0, 1, 2]
    mask = torch.zeros(4, 4, 4)
    for window in range(4):
        origin = [
            (part[2 * (window // 2) + r], part[2 * (window % 2) + c])
            for r in range(2)
            for c in range(2)
        ]
        for i, one in enumerate(origin):
            for j, two in enumerate(origin):
                mask[window, i, j] = 0.0 if one == two else -100.0
    return mask


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_shifted_window_with_a_bias_table(seed: int, whole: bool) -> None:
    net = shaken(ShiftedWindow(whole))
    net.mask.copy_(crossing())
    made = pruned(net, torch.randn(2, 3, 4, 4), seed)
    plan = made.plan
    width = kept(plan, "a.weight", 0, 24)
    rows = kept(plan, "qkv.weight", 0, 72)
    q, k, v = (by_head([row % 24 for row in rows if row // 24 == part], 6) for part in range(3))
    heads = kept(plan, "table", 1, 4)
    assert q == k
    assert list(q) == list(v) == heads
    assert (len(heads) < 4) == whole
    assert all(len(dims) == 6 for dims in (*q.values(), *v.values())) == whole
    x = torch.randn(3, 3, 4, 4)
    with torch.no_grad():
        found = made.network(x)
        for one, result in zip(x, found, strict=True):
            hidden = torch.relu(net.a(one[None])[0])[width].permute(1, 2, 0)
            total = hidden.clone()
            for window in range(4):
                # Pixels of the window, in the image before the shift.
                places = [
                    ((2 * (window // 2) + r + 1) % 4, (2 * (window % 2) + c + 1) % 4)
                    for r in range(2)
                    for c in range(2)
                ]
                tokens = torch.stack([hidden[place] for place in places])
                mixed = net.o.bias[width].expand(4, -1).clone()
                for head in heads:
                    query, key, value = (
                        projected(net.qkv, tokens, width, [24 * part + 6 * head + d for d in dims])
                        for part, dims in enumerate((q[head], k[head], v[head]))
                    )
                    if whole:
                        query, key, value = (item.softmax(-1) for item in (query, key, value))
                    bias = net.table[:, head][offsets()] + crossing()[window]
                    seen = attended(query, key, value, 6**-0.5, bias)
                    mixed += seen @ net.o.weight[width][:, [6 * head + d for d in v[head]]].T
                for place, row in zip(places, mixed, strict=True):
                    total[place] += row
            assert_same(total @ net.b.weight[:, width].T + net.b.bias, result)


class Rotary(nn.Module):
    """Four heads of width 6 from one fused projection, turned by their position."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(10, 24)
        self.qkv = nn.Linear(24, 72, bias=False)
        self.o = nn.Linear(24, 24, bias=False)
        self.b = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        q, k, v = self.qkv(x).view(x.shape[0], x.shape[1], 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        steps = torch.arange(x.shape[1])[:, None] * 0.7 ** torch.arange(3)
        cos, sin = torch.cat([steps, steps], -1).cos(), torch.cat([steps, steps], -1).sin()

        def turn(part: Tensor) -> Tensor:
            one, two = part.chunk(2, -1)
            return part * cos + torch.cat([-two, one], -1) * sin

        seen = F.scaled_dot_product_attention(turn(q), turn(k), v, is_causal=True)
        return self.b(x + self.o(seen.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fused_projection_with_rotary_terms(seed: int) -> None:
    net = shaken(Rotary())
    made = pruned(net, torch.randn(2, 6, 10), seed)
    plan = made.plan
    width = kept(plan, "a.weight", 0, 24)
    rows = kept(plan, "qkv.weight", 0, 72)
    q, k, v = (by_head([row % 24 for row in rows if row // 24 == part], 6) for part in range(3))
    # The two channels that are turned into one another have one angle, and stay together.
    assert q == k
    assert list(q) == list(v)
    assert all(sorted((d + 3) % 6 for d in dims) == dims for dims in q.values())
    x = torch.randn(3, 6, 10)
    causal = torch.full((6, 6), -math.inf).triu(1)
    with torch.no_grad():
        found = made.network(x)
        for one, result in zip(x, found, strict=True):
            hidden = torch.relu(one @ net.a.weight.T + net.a.bias)[:, width]
            total = hidden.clone()
            for head in q:
                query, key = (
                    torch.stack([turned(net, hidden[t], width, part, head, t) for t in range(6)])[
                        :, q[head]
                    ]
                    for part in range(2)
                )
                rows_of_v = [48 + 6 * head + d for d in v[head]]
                value = hidden @ net.qkv.weight[rows_of_v][:, width].T
                seen = attended(query, key, value, 6**-0.5, causal)
                total += seen @ net.o.weight[width][:, [6 * head + d for d in v[head]]].T
            assert_same(total @ net.b.weight[:, width].T + net.b.bias, result)


def turned(net: Rotary, token: Tensor, width: list[int], part: int, head: int, t: int) -> Tensor:
    """All six channels of a query or key at step `t`: pairs (i, i + 3) as complex numbers."""
    rows = [24 * part + 6 * head + d for d in range(6)]
    plain = net.qkv.weight[rows][:, width] @ token
    turn = torch.polar(torch.ones(3), t * 0.7 ** torch.arange(3))
    result = torch.complex(plain[:3], plain[3:]) * turn
    return torch.cat([result.real, result.imag])


class LanguageModel(nn.Module):
    """Tokens (N, T) of 11 words; the embedding is the output layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 24)
        self.places = nn.Parameter(torch.randn(6, 24))
        self.n1, self.n2, self.n3 = nn.LayerNorm(24), nn.LayerNorm(24), nn.LayerNorm(24)
        self.mix = nn.MultiheadAttention(24, 4, batch_first=True)
        self.up, self.down = nn.Linear(24, 48), nn.Linear(48, 24)
        self.head = nn.Linear(24, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places[: tokens.shape[1]]
        y = self.n1(x)
        mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
        x = x + self.mix(y, y, y, attn_mask=mask, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.n2(x))))
        return self.head(self.n3(x))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_language_model_with_tied_weights(seed: int) -> None:
    net = shaken(LanguageModel())
    tokens = torch.arange(12).reshape(2, 6) % 11
    made = pruned(net, tokens, seed)
    plan = made.plan
    # One tensor, listed once, under either of its names.
    (tied,) = {"words.weight", "head.weight"} & set(plan.tensors)
    width = kept(plan, tied, 1, 24)
    assert len(width) < 24
    held = dict(made.network.named_parameters())
    assert [item.shape for item in held.values() if item.shape[0] == 11] == [(11, len(width))]
    units = kept(plan, "up.weight", 0, 48)
    rows = kept(plan, "mix.in_proj_weight", 0, 72)
    q, k, v = (by_head([row % 24 for row in rows if row // 24 == part], 6) for part in range(3))
    assert q == k
    causal = torch.full((6, 6), -math.inf).triu(1)
    mix, weight, bias = net.mix, net.mix.in_proj_weight, net.mix.in_proj_bias
    tokens = torch.randint(0, 11, (3, 6))
    with torch.no_grad():
        found = made.network(tokens)
        for sentence, result in zip(tokens, found, strict=True):
            x = (net.words.weight[sentence] + net.places)[:, width]
            y = normed(net.n1, x, width)
            mixed = mix.out_proj.bias[width].expand(6, -1).clone()
            for head in q:
                parts = [
                    y @ weight[own][:, width].T + bias[own]
                    for own in (
                        [24 * part + 6 * head + d for d in dims[head]]
                        for part, dims in enumerate((q, k, v))
                    )
                ]
                seen = attended(*parts, 6**-0.5, causal)
                mixed += seen @ mix.out_proj.weight[width][:, [6 * head + d for d in v[head]]].T
            x = x + mixed
            inner = projected(net.up, normed(net.n2, x, width), width, units)
            inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
            x = x + projected(net.down, inner, units, width)
            assert_same(normed(net.n3, x, width) @ net.words.weight[:, width].T, result)


def normed(norm: nn.LayerNorm, x: Tensor, kept: list[int]) -> Tensor:
    """Layer norm with the statistics of what is left."""
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return centred / spread * norm.weight[kept] + norm.bias[kept]
