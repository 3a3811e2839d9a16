"""A sentence encoder in NumPy: WordPiece, BERT, mean pooling. Enough to ask what compression did to meaning."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["Vocabulary", "embed"]

Array = np.ndarray[Any, np.dtype[np.float32]]
Tensors = Mapping[str, Array]
Vocabulary = Mapping[str, int]

_HEADS = 12  # of 32 dimensions each
_EPSILON = np.float32(1e-12)
_erf = np.frompyfunc(math.erf, 1, 1)


def embed(sentences: Iterable[str], tensors: Tensors, vocabulary: Vocabulary) -> Array:
    """Map each sentence to the mean of its tokens' last states, scaled to length 1.

    Args:
        sentences: n sentences in English.
        tensors: the network, names and shapes of BERT as published, float32.
        vocabulary: token to row of the word embeddings.

    Returns:
        float32 array of shape (n, 384).
    """
    means = [_states(np.array(_tokens(sentence, vocabulary)), tensors).mean(axis=0) for sentence in sentences]
    return np.stack([mean / np.linalg.norm(mean) for mean in means])


def _tokens(sentence: str, vocabulary: Vocabulary) -> list[int]:
    """Numbers of the longest known pieces of every word, between [CLS] and [SEP]."""
    pieces = [piece for word in _words(sentence) for piece in _pieces(word, vocabulary)]
    return [vocabulary[token] for token in ["[CLS]", *pieces, "[SEP]"]]


def _words(sentence: str) -> list[str]:
    """Lower case without accents; punctuation stands alone."""
    plain = (c for c in unicodedata.normalize("NFD", sentence.lower()) if unicodedata.category(c) != "Mn")
    return "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in plain).split()


def _pieces(word: str, vocabulary: Vocabulary) -> Iterator[str]:
    known: list[str] = []
    begin = 0
    while begin < len(word):
        prefix = "##" if begin else ""
        ends = (end for end in range(len(word), begin, -1) if prefix + word[begin:end] in vocabulary)
        end = next(ends, None)
        if end is None:
            yield "[UNK]"
            return
        known.append(prefix + word[begin:end])
        begin = end
    yield from known


def _states(tokens: np.ndarray[Any, np.dtype[np.int64]], tensors: Tensors) -> Array:
    """Last hidden states, one row a token."""
    x = tensors["embeddings.word_embeddings.weight"][tokens]
    x = x + tensors["embeddings.position_embeddings.weight"][: len(tokens)]
    x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    x = _norm(x, tensors, "embeddings.LayerNorm")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in tensors:
        x = _layer(x, tensors, f"encoder.layer.{layer}")
        layer += 1
    return x


def _layer(x: Array, tensors: Tensors, at: str) -> Array:
    query, key, value = (_heads(_linear(x, tensors, f"{at}.attention.self.{n}")) for n in ("query", "key", "value"))
    score = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[-1]))
    weight = np.exp(score - score.max(axis=-1, keepdims=True))
    mixed = (weight / weight.sum(axis=-1, keepdims=True)) @ value
    attended = _linear(mixed.transpose(1, 0, 2).reshape(x.shape), tensors, f"{at}.attention.output.dense")
    x = _norm(x + attended, tensors, f"{at}.attention.output.LayerNorm")
    inner = _linear(x, tensors, f"{at}.intermediate.dense")
    active = inner * (0.5 + 0.5 * _erf(inner / math.sqrt(2)).astype(np.float32))
    return _norm(x + _linear(active, tensors, f"{at}.output.dense"), tensors, f"{at}.output.LayerNorm")


def _heads(x: Array) -> Array:
    return x.reshape(len(x), _HEADS, -1).transpose(1, 0, 2)


def _linear(x: Array, tensors: Tensors, at: str) -> Array:
    return x @ tensors[f"{at}.weight"].T + tensors[f"{at}.bias"]


def _norm(x: Array, tensors: Tensors, at: str) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
    normed: Array = centred / scale * tensors[f"{at}.weight"] + tensors[f"{at}.bias"]
    return normed
