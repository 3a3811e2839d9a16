"""Modules whose weights are used inside one call: attention with packed projections, LSTM and GRU.

Their linear maps cannot be watched from outside, so the call is computed again, open: each map's output becomes a
leaf of a small graph, and the gradient at the module's output is sent through that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Inner", "Replay", "can_replay", "replay"]


@dataclass(frozen=True, slots=True)
class Inner:
    """One linear map inside a module.

    Attributes:
        weight: name of the weight in the module.
        bias: of its bias, or "".
        input: [.., n].
        output: [.., rows], a leaf.
        start: first row of the weight that it uses.
        bias_start: first entry of the bias.
        time_first: the first axis of input and output is time, the second the samples.
    """

    weight: str
    bias: str
    input: Tensor
    output: Tensor
    start: int = 0
    bias_start: int = 0
    time_first: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """A call computed again.

    Attributes:
        output: what the module returned first.
        inner: its linear maps.
    """

    output: Tensor
    inner: tuple[Inner, ...]


def can_replay(module: nn.Module) -> bool:
    """Whether `replay` knows this module."""
    if type(module) is nn.MultiheadAttention:
        return module.bias_k is None
    return type(module) in (nn.LSTM, nn.GRU) and not getattr(module, "proj_size", 0)


def replay(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Replay:
    """Compute a call of one of these modules again, its linear maps open."""
    with torch.enable_grad():
        if isinstance(module, nn.MultiheadAttention):
            return _attention(module, *args, **kwargs)
        assert isinstance(module, nn.LSTM | nn.GRU)
        return _recurrent(module, *args, **kwargs)


def _leaf(t: Tensor) -> Tensor:
    return t.detach().requires_grad_()


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Replay:  # fmt: skip
    """Project with our own maps, and let torch do the rest with identities for its projections."""
    del need_weights, average_attn_weights
    size = module.embed_dim
    packed = module.in_proj_weight is not None
    names = ("in_proj_weight",) * 3 if packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    first = not module.batch_first and query.ndim == 3
    inner = []
    for j, (name, x) in enumerate(zip(names, (query, key, value), strict=True)):
        w = getattr(module, name).detach()
        w = w[j * size : (j + 1) * size] if packed else w
        b = None if module.in_proj_bias is None else module.in_proj_bias.detach()[j * size : (j + 1) * size]
        start = j * size if packed else 0
        bias = "" if b is None else "in_proj_bias"
        inner.append(Inner(name, bias, x.detach(), _leaf(F.linear(x.detach(), w, b)), start, j * size, first))
    q, k, v = (each.output for each in inner)
    if module.batch_first and q.ndim == 3:
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    one = torch.eye(size, dtype=q.dtype, device=q.device)
    mixed, _ = F.multi_head_attention_forward(
        q, k, v, size, module.num_heads, torch.cat([one, one, one]), None, None, None, module.add_zero_attn, 0.0, one,
        torch.zeros(size, dtype=q.dtype, device=q.device), training=False, key_padding_mask=key_padding_mask,
        need_weights=False, attn_mask=attn_mask, is_causal=is_causal,
    )  # fmt: skip
    mixed = mixed.transpose(0, 1) if module.batch_first and mixed.ndim == 3 else mixed
    out = module.out_proj
    last = _leaf(F.linear(mixed.detach(), out.weight.detach(), None if out.bias is None else out.bias.detach()))
    bias = "" if out.bias is None else "out_proj.bias"
    inner.append(Inner("out_proj.weight", bias, mixed.detach(), last, 0, 0, first))
    # The output map is linear: its output's gradient is the module's, and goes on through its weight.
    joined = F.linear(mixed, out.weight.detach()) + (last - last.detach())
    return Replay(joined, tuple(inner))


def _recurrent(module: nn.LSTM | nn.GRU, x: Tensor, state: Any = None) -> Replay:
    """Unroll over time, every gate's two maps open."""
    x = x.detach()
    batched = x.ndim == 3
    x = x if batched else x[None] if module.batch_first else x[:, None]
    x = x.transpose(0, 1) if module.batch_first else x
    states = _states(module, x, state, batched)
    inner: list[Inner] = []
    directions = 2 if module.bidirectional else 1
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            suffix = f"l{layer}{'_reverse' if direction else ''}"
            h0 = tuple(s[layer * directions + direction] for s in states)
            outputs.append(_direction(module, suffix, x, h0, bool(direction), inner))
        x = torch.cat(outputs, dim=-1)
    x = x.transpose(0, 1) if module.batch_first else x
    return Replay(x if batched else x[0] if module.batch_first else x[:, 0], tuple(inner))


def _states(module: nn.LSTM | nn.GRU, x: Tensor, state: Any, batched: bool) -> tuple[Tensor, ...]:
    count = 2 if isinstance(module, nn.LSTM) else 1
    if state is None:
        layers = module.num_layers * (2 if module.bidirectional else 1)
        return (x.new_zeros(layers, x.shape[1], module.hidden_size),) * count
    given = tuple(state) if isinstance(module, nn.LSTM) else (state,)
    return tuple(s.detach() if batched else s.detach()[:, None] for s in given)


def _direction(
    module: nn.LSTM | nn.GRU, suffix: str, x: Tensor, state: tuple[Tensor, ...], backwards: bool, inner: list[Inner]
) -> Tensor:
    """One direction of one layer; its maps are added to `inner`, time first."""
    weights = [getattr(module, f"{name}_{suffix}").detach() for name in ("weight_ih", "weight_hh")]
    biases = [getattr(module, f"{name}_{suffix}").detach() if module.bias else None for name in ("bias_ih", "bias_hh")]
    offset_x = torch.zeros(*x.shape[:2], len(weights[0]), dtype=x.dtype, device=x.device, requires_grad=True)
    offset_h = torch.zeros_like(offset_x, requires_grad=True)
    from_x = F.linear(x, weights[0], biases[0]) + offset_x
    steps = range(len(x) - 1, -1, -1) if backwards else range(len(x))
    h, hidden, outputs = state[0], [], {}
    c = state[1] if len(state) > 1 else h
    for t in steps:
        hidden.append((t, h.detach()))
        from_h = F.linear(h, weights[1], biases[1]) + offset_h[t]
        if isinstance(module, nn.LSTM):
            i, f, g, o = (from_x[t] + from_h).chunk(4, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        else:
            (rx, zx, nx), (rh, zh, nh) = from_x[t].chunk(3, dim=-1), from_h.chunk(3, dim=-1)
            z = torch.sigmoid(zx + zh)
            h = (1 - z) * torch.tanh(nx + torch.sigmoid(rx + rh) * nh) + z * h
        outputs[t] = h
    names = [(f"{part}_ih_{suffix}", f"{part}_hh_{suffix}") for part in ("weight", "bias")]
    before = torch.stack([h for _, h in sorted(hidden, key=lambda pair: pair[0])])
    bias = [name if module.bias else "" for name in names[1]]
    inner.append(Inner(names[0][0], bias[0], x.detach(), offset_x, 0, 0, True))
    inner.append(Inner(names[0][1], bias[1], before, offset_h, 0, 0, True))
    return torch.stack([outputs[t] for t in range(len(x))])
