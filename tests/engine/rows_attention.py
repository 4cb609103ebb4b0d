"""Rows: attention as it is written in practice, and recurrent layers."""

import torch
import torch.nn.functional as F
from engine_harness import Net
from engine_rows import IMAGE, Row
from torch import nn

TOKENS = (6, 10)


def heads(tensor, number):
    return tensor.unflatten(-1, (number, -1)).transpose(1, 2)


def merged(tensor):
    return tensor.transpose(1, 2).flatten(2)


def fused(n, x, *, scale=None, mask=None):
    q, k, v = (heads(part, 4) for part in n.qkv(x).chunk(3, -1))
    return n.o(merged(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)))


def by_hand(n, x, *, bias=0.0):
    batch, length, _ = x.shape
    q, k, v = n.qkv(x).view(batch, length, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
    pairs = (q * (q.shape[-1] ** -0.5)) @ k.transpose(-2, -1) + bias
    return n.o((pairs.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, -1))


def linear_attention(n, x):
    q, k, v = heads(F.elu(n.q(x)) + 1, 4), heads(F.elu(n.k(x)) + 1, 4), heads(n.v(x), 4)
    norm = q @ k.sum(2, keepdim=True).transpose(-2, -1) + 1e-3
    return n.o(merged(q @ (k.transpose(-2, -1) @ v) / norm))


def over_channels(n, x):
    q, k, v = (heads(layer(x), 4).transpose(-2, -1) for layer in (n.q, n.k, n.v))
    pairs = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
    return n.o((pairs.softmax(-1) @ v).permute(0, 3, 1, 2).flatten(2))


def shared_keys(n, x):
    q, k, v = heads(n.q(x), 4), heads(n.k(x), 2), heads(n.v(x), 2)
    k, v = (part.repeat_interleave(2, 1) for part in (k, v))
    return n.o(merged(F.scaled_dot_product_attention(q, k, v)))


def one_key(n, x):
    """Multi-query attention, its one key and value spread out by hand."""
    q = heads(n.q(x), 4)
    k, v = (layer(x).unsqueeze(1).expand(-1, 4, -1, -1) for layer in (n.k, n.v))
    return n.o(merged((q @ k.mT * 0.5).softmax(-1) @ v))


def rotated(n, x):
    def turn(part):
        one, two = part.chunk(2, -1)
        return part * n.cos + torch.cat([-two, one], -1) * n.sin

    q, k, v = (heads(layer(x), 4) for layer in (n.q, n.k, n.v))
    return n.o(merged(F.scaled_dot_product_attention(turn(q), turn(k), v)))


def spelled(n, x):
    q, k, v = (layer(x).unflatten(-1, (2, -1)) for layer in (n.q, n.k, n.v))
    pairs = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
    return n.o(torch.einsum("bhts,bshd->bthd", pairs, v).flatten(2))


def latents(n, x):
    q = n.q(n.lat.expand(x.size(0), -1, -1))
    k, v = n.kv(x).chunk(2, -1)
    return n.o(merged(F.scaled_dot_product_attention(heads(q, 4), heads(k, 4), heads(v, 4))))


def vision(n, x):
    x = n.patch(x).flatten(2).transpose(1, 2)
    x = torch.cat([n.cls.expand(x.size(0), -1, -1), x], 1) + n.pos
    x = x + fused(n, n.n1(x))
    x = x + n.f2(F.gelu(n.f1(n.n2(x))))
    return n.head(n.n3(x)[:, 0])


def block(name: str, attention, *, goes: str, qkv: bool = False, layers=dict, **row) -> Row:
    """linear a -> x + attention(x) -> linear b."""

    def make() -> nn.Module:
        own = {"qkv": 48} if qkv else {"q": 16, "k": 16, "v": 16}
        return Net(
            lambda n, x: n.b(torch.relu(n.a(x) + attention(n, n.a(x)))),
            a=nn.Linear(10, 16),
            b=nn.Linear(16, 4),
            **{**{key: nn.Linear(16, width) for key, width in own.items()}, **layers()},
            o=nn.Linear(16, 16),
        )

    return Row(name, make, (TOKENS,), goes=("a.weight", *goes.split()), **row)


ATTENTION = (
    block("attention-fused", fused, qkv=True, goes="qkv.weight o.weight"),
    block("attention-scaled", lambda n, x: fused(n, x, scale=0.4), qkv=True, goes="qkv.weight"),
    block("attention-masked", lambda n, x: fused(n, x, mask=n.m), qkv=True, goes="qkv.weight",
          layers=lambda: {"m": torch.randn(6, 6)}),
    block("attention-by-hand", by_hand, qkv=True, goes="qkv.weight o.weight"),
    block("attention-biased-per-head", lambda n, x: by_hand(n, x, bias=n.rel), qkv=True,
          goes="qkv.weight rel", layers=lambda: {"rel": nn.Parameter(torch.randn(4, 6, 6))}),
    block("attention-linear", linear_attention, goes="q.weight v.weight", exact=False),
    block("attention-over-channels", over_channels, goes="q.weight v.weight", exact=False),
    block("attention-grouped-query", shared_keys, goes="q.weight k.weight v.weight",
          layers=lambda: {"k": nn.Linear(16, 8), "v": nn.Linear(16, 8)}),
    block("attention-one-key", one_key, goes="q.weight k.weight v.weight",
          layers=lambda: {"k": nn.Linear(16, 4), "v": nn.Linear(16, 4)}),
    block("attention-rotary", rotated, goes="v.weight", layers=lambda: {
        "cos": torch.randn(6, 4), "sin": torch.randn(6, 4)}),
    block("attention-einsum", spelled, goes="q.weight k.weight v.weight o.weight"),
    Row("attention-latents", lambda: Net(
        lambda n, x: n.b(latents(n, torch.relu(n.a(x)))), a=nn.Linear(10, 16), b=nn.Linear(16, 4),
        q=nn.Linear(16, 16), kv=nn.Linear(16, 32), o=nn.Linear(16, 16),
        lat=nn.Parameter(torch.randn(1, 5, 16))), (TOKENS,),
        goes=("a.weight", "q.weight", "kv.weight", "o.weight")),
    Row("attention-module", lambda: Net(
        lambda n, x: n.b(n.m(n.a(x), n.a(x), n.a(x))[0]), a=nn.Linear(10, 16),
        m=nn.MultiheadAttention(16, 4, batch_first=True), b=nn.Linear(16, 4)), (TOKENS,),
        goes=("a.weight", "m.in_proj_weight", "m.out_proj.weight")),
    Row("transformer", lambda: Net(
        lambda n, x: n.b(n.m(n.a(x), n.a(x[:, :3]), tgt_mask=n.mask)), a=nn.Linear(10, 16),
        m=nn.Transformer(16, 4, 1, 1, 32, batch_first=True), b=nn.Linear(16, 4),
        mask=nn.Transformer.generate_square_subsequent_mask(3)), (TOKENS,),
        goes=("a.weight", "m.decoder.layers.0.multihead_attn.in_proj_weight",
              "m.decoder.layers.0.linear1.weight", "m.encoder.layers.0.linear1.weight"),
        exact=False),
    Row("vision-transformer", lambda: Net(
        vision, patch=nn.Conv2d(3, 16, 4, 4), cls=nn.Parameter(torch.randn(1, 1, 16)),
        pos=nn.Parameter(torch.randn(1, 5, 16)), n1=nn.LayerNorm(16), n2=nn.LayerNorm(16),
        n3=nn.LayerNorm(16), qkv=nn.Linear(16, 48), o=nn.Linear(16, 16), f1=nn.Linear(16, 32),
        f2=nn.Linear(32, 16), head=nn.Linear(16, 5)), (IMAGE,),
        goes=("patch.weight", "qkv.weight", "o.weight", "f1.weight", "f2.weight", "n1.weight"),
        stays={"head": "network output"}),
)  # fmt: skip


def unrolled(n, x):
    h = c = x.new_zeros(x.size(0), 12)
    for step in torch.relu(n.a(x)).unbind(1):
        if isinstance(n.l, nn.LSTMCell):
            h, c = n.l(step, (h, c))
        else:
            h = n.l(step, h)
    return n.b(h)


def translated(n, x):
    """The decoder starts from the encoder's state and attends to its outputs."""
    seen, state = n.encoder(n.a(x))
    said, _ = n.decoder(n.c(x[:, :3]), state)
    return n.b(torch.cat([said, (said @ seen.mT).softmax(-1) @ seen], -1))


def cell(name: str, make) -> Row:
    """linear a -> the cell, step after step -> linear b."""
    return Row(
        name,
        lambda: Net(unrolled, a=nn.Linear(10, 16), l=make(), b=nn.Linear(12, 4)),
        (TOKENS,),
        goes=("a.weight", "l.weight_ih", "l.weight_hh"),
    )


def recurrent(name: str, make, *, width: int, more: str = "") -> Row:
    """linear a -> the layer -> linear b, at every step."""
    goes = f"a.weight l.weight_ih_l0 l.weight_hh_l0 {more}"
    return Row(
        name,
        lambda: Net(
            lambda n, x: n.b(n.l(torch.relu(n.a(x)))[0]),
            a=nn.Linear(10, 16),
            l=make(),
            b=nn.Linear(width, 4),
        ),
        (TOKENS,),
        goes=tuple(goes.split()),
    )


RECURRENT = (
    recurrent("lstm", lambda: nn.LSTM(16, 12, 2, batch_first=True, bidirectional=True), width=24,
              more="l.weight_hh_l1_reverse"),
    recurrent("rnn-time-first", lambda: nn.RNN(16, 12, 2), width=12),
    Row("gru", lambda: Net(
        lambda n, x: n.b(n.l(torch.relu(n.a(x)))[1][-1]), a=nn.Linear(10, 16),
        l=nn.GRU(16, 12, batch_first=True), b=nn.Linear(12, 4)), (TOKENS,),
        goes=("a.weight", "l.weight_ih_l0", "l.weight_hh_l0")),
    cell("lstm-cell", lambda: nn.LSTMCell(16, 12)),
    cell("gru-cell", lambda: nn.GRUCell(16, 12)),
    cell("rnn-cell", lambda: nn.RNNCell(16, 12, bias=False)),
    cell("rnn-cell-relu", lambda: nn.RNNCell(16, 12, nonlinearity="relu")),
    Row("sequence-to-sequence", lambda: Net(
        translated, a=nn.Linear(10, 8), c=nn.Linear(10, 8),
        encoder=nn.LSTM(8, 12, batch_first=True),
        decoder=nn.LSTM(8, 12, batch_first=True), b=nn.Linear(24, 4)), (TOKENS,),
        goes=("a.weight", "c.weight", "encoder.weight_hh_l0", "decoder.weight_hh_l0")),
)  # fmt: skip

ROWS = (*ATTENTION, *RECURRENT)
