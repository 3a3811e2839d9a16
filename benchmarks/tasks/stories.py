"""A small language model of stories and its tokenizer. No input is padded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .core import DATA, Scores, Task, load, softmax_nats

__all__ = ["stories260k"]

_TOKENS = 40_216  # predicted in the first stories, at most 512 a story: what perplexity is stated on


def stories260k(data: Path = DATA, *, calibration: int = 64, heldout: int = _TOKENS) -> Task:
    """Llama of 260,000 weights; a sample is a story, its divergence the mean over tokens.

    Calibration: the last stories; judged on the first. Both at full length, at most 512 tokens: errors grow along a
    story, and by its first 128 tokens `netweight` predicts too little.
    """
    folder = data / "lm" / "stories260k"
    stories = json.loads((data / "lm" / "tinystories_1000.json").read_text())
    pieces = json.loads((folder / "tokenizer.json").read_text())
    encode = partial(_story_tokens, {t: j for j, t in enumerate(pieces["tokens"])}, pieces["scores"], pieces["tokens"])
    judged: list[Tensor] = []
    while sum(len(tokens) - 1 for tokens in judged) < heldout:
        judged.append(torch.tensor(encode(stories[len(judged)])[:512]))
    known = [torch.tensor(encode(story)[:512])[None] for story in stories[: -1 - calibration : -1]]
    file = folder / "model.safetensors"
    return Task(
        "stories260k",
        "stories260K",
        file,
        lambda: load(_Llama(64, 172, 5, 8, 4, 8, 512), file),
        known,
        [tokens[None] for tokens in judged],
        softmax_nats,
        partial(_log_loss, judged),
        lambda scores: float(np.exp(scores.mean())),
        "perplexity",
    )


def _story_tokens(known: dict[str, int], scores: Sequence[float], pieces: Sequence[str], story: str) -> list[int]:
    """Byte pairs in the order of their scores, after a beginning of text and a space."""
    words = (" " + story).replace(" ", "\0 ").split("\0")[1:]  # no piece has a space but at its beginning
    return [1, *(token for word in words for token in _merged(known, scores, pieces, word))]


def _merged(known: dict[str, int], scores: Sequence[float], pieces: Sequence[str], word: str) -> list[int]:
    tokens: list[int] = []
    for letter in word:
        tokens += [known[letter]] if letter in known else [byte + 3 for byte in letter.encode()]
    while True:
        pairs = [(known.get(pieces[a] + pieces[b]), j) for j, (a, b) in enumerate(pairwise(tokens))]
        best = max(((scores[t], -j, t) for t, j in pairs if t is not None), default=None)
        if best is None:
            return tokens
        tokens[-best[1] : -best[1] + 2] = [best[2]]


def _log_loss(judged: Sequence[Tensor], found: Sequence[Tensor]) -> Scores:
    """Minus the log of the next token's probability, for every token but the first of a story."""
    losses = [
        nn.functional.cross_entropy(logits[0, :-1].double(), tokens[1:], reduction="none")
        for logits, tokens in zip(found, judged, strict=True)
    ]
    return torch.cat(losses).numpy()


class _Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * self.weight


class _LlamaAttention(nn.Module):
    def __init__(self, width: int, heads: int, shared: int, head: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, heads * head, bias=False)
        self.k_proj = nn.Linear(width, shared * head, bias=False)
        self.v_proj = nn.Linear(width, shared * head, bias=False)
        self.o_proj = nn.Linear(heads * head, width, bias=False)
        self.head, self.times = head, heads // shared

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            p(x).view(batch, length, -1, self.head).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotated(q), _rotated(k)
        k, v = (t.repeat_interleave(self.times, 1) for t in (k, v))
        scores = q @ k.transpose(2, 3) / self.head**0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        y: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return y


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions, the two halves of a head being real and imaginary parts."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[2])[:, None] * 10_000.0 ** (-torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class _LlamaMlp(nn.Module):
    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, wide, bias=False)
        self.up_proj = nn.Linear(width, wide, bias=False)
        self.down_proj = nn.Linear(wide, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(nn.functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class _LlamaLayer(nn.Module):
    def __init__(self, width: int, wide: int, heads: int, shared: int, head: int) -> None:
        super().__init__()
        self.input_layernorm = _Norm(width)
        self.self_attn = _LlamaAttention(width, heads, shared, head)
        self.post_attention_layernorm = _Norm(width)
        self.mlp = _LlamaMlp(width, wide)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        y: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return y


class _LlamaBody(nn.Module):
    def __init__(self, width: int, wide: int, layers: int, heads: int, shared: int, head: int, words: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(words, width)
        self.layers = nn.ModuleList(_LlamaLayer(width, wide, heads, shared, head) for _ in range(layers))
        self.norm = _Norm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.norm(x)
        return y


class _Llama(nn.Module):
    """Decoder whose output layer is the embedding's own matrix."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.model = _LlamaBody(*sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.linear(self.model(tokens), self.model.embed_tokens.weight)
