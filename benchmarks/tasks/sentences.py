"""A sentence encoder and its tokenizer. No input is padded."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .core import DATA, Scores, Task, embedding_nats, load

__all__ = ["minilm"]


def minilm(file: Path, data: Path = DATA, *, calibration: int = 256, heldout: int = 1500) -> Task:
    """Sentence encoder of six layers; unit embeddings, mean over tokens.

    Calibration: the first sentences of pairs drawn at random, since the two of a pair say nearly the same, and only
    independent inputs tell what new ones will be like; judged on the other pairs. With `calibration` 0 on all.
    """
    lines = (data / "minilm" / "stsb_dev.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    words = {word: j for j, word in enumerate((data / "minilm" / "vocab.txt").read_text().splitlines())}
    order = np.random.default_rng(0).permutation(len(rows))
    seen: dict[str, None] = {}
    taken = 0
    while len(seen) < calibration:
        seen[rows[order[taken]][1]] = None
        taken += 1
    known = {sentence for j in order[:taken] for sentence in rows[j][1:3]}
    judged = [rows[j] for j in np.sort(order[taken:]) if not known & set(rows[j][1:3])][:heldout]
    texts = list(dict.fromkeys(sentence for row in judged for sentence in row[1:3]))
    batches, place = _by_length(words, texts)
    pairs = np.array([[place[sentence] for sentence in row[1:3]] for row in judged])
    return Task(
        "minilm",
        "all-MiniLM-L6-v2",
        file,
        lambda: load(_Encoder(), file),
        _by_length(words, sorted(seen), most=16)[0],
        batches,
        embedding_nats,
        partial(_cosines, pairs),
        partial(_spearman, np.array([float(row[0]) for row in judged])),
        "Spearman",
    )


def _by_length(words: dict[str, int], texts: Sequence[str], most: int = 32) -> tuple[list[Tensor], dict[str, int]]:
    """Batches of texts with equally many tokens, and the place of each text in them all."""
    found: dict[int, list[str]] = {}
    tokens = {text: _word_pieces(words, text) for text in texts}
    for text in texts:
        found.setdefault(len(tokens[text]), []).append(text)
    groups = [group[at : at + most] for _, group in sorted(found.items()) for at in range(0, len(group), most)]
    flat = [text for group in groups for text in group]
    return [torch.tensor([tokens[text] for text in group]) for group in groups], {t: j for j, t in enumerate(flat)}


def _word_pieces(words: dict[str, int], text: str, most: int = 256) -> list[int]:
    """Lower case without accents, punctuation apart, then the longest pieces of the vocabulary, greedily."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if _punctuation(c) else c for c in plain)
    tokens: list[int] = []
    for word in spaced.split():
        tokens += _pieces(words, word)
    return [words["[CLS]"], *tokens[: most - 2], words["[SEP]"]]


def _punctuation(c: str) -> bool:
    return unicodedata.category(c).startswith("P") or (c.isascii() and c.isprintable() and not c.isalnum() and c != " ")


def _pieces(words: dict[str, int], word: str) -> list[int]:
    out: list[int] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((e for e in range(len(word), start, -1) if prefix + word[start:e] in words), None)
        if end is None:
            return [words["[UNK]"]]
        out.append(words[prefix + word[start:end]])
        start = end
    return out


def _cosines(pairs: np.ndarray, found: Sequence[Tensor]) -> Scores:
    unit = torch.cat(list(found)).double().numpy()
    return np.asarray(np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]]))


def _spearman(wanted: Scores, scores: Scores) -> float:
    """Correlation of ranks, ties at their mean rank."""
    return float(np.corrcoef(_ranks(wanted), _ranks(scores))[0, 1])


def _ranks(values: Scores) -> Scores:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(((2 * last - counts - 1) / 2)[inverse])


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(30_522, 384)
        self.position_embeddings = nn.Embedding(512, 384)
        self.token_type_embeddings = nn.Embedding(2, 384)
        self.LayerNorm = nn.LayerNorm(384, eps=1e-12)
        self.register_buffer("position_ids", torch.arange(512)[None])

    def forward(self, tokens: Tensor) -> Tensor:
        place = torch.arange(tokens.shape[1])[None]
        x = self.word_embeddings(tokens) + self.position_embeddings(place)
        y: Tensor = self.LayerNorm(x + self.token_type_embeddings(torch.zeros_like(tokens)))
        return y


class _Residual(nn.Module):
    """Linear layer, addition, norm."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, 384)
        self.LayerNorm = nn.LayerNorm(384, eps=1e-12)

    def forward(self, x: Tensor, short: Tensor) -> Tensor:
        y: Tensor = self.LayerNorm(self.dense(x) + short)
        return y


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(384, 384) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(2, (12, 32)).transpose(1, 2) for p in (self.query, self.key, self.value))
        mixed = (q @ k.transpose(2, 3) / 32**0.5).softmax(-1) @ v
        y: Tensor = mixed.transpose(1, 2).flatten(2)
        return y


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self = _SelfAttention()
        self.output = _Residual(384)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.self(x), x)
        return y


class _Dense(nn.Module):
    def __init__(self, outside: int) -> None:
        super().__init__()
        self.dense = nn.Linear(384, outside)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(x)
        return y


class _EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _Attention()
        self.intermediate = _Dense(1536)
        self.output = _Residual(1536)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        y: Tensor = self.output(nn.functional.gelu(self.intermediate(x)), x)
        return y


class _Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_EncoderLayer() for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = _Stack()
        self.pooler = _Dense(384)  # in the file, not in use

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.normalize(self.encoder(self.embeddings(tokens)).mean(1), dim=-1)
