"""Layers to try feedback on, and how their tensors go to bytes and come back."""

from dataclasses import replace

import numpy as np

from netweight.codecs.matrix import matrix_of
from netweight.codecs.ridge import Spectrum
from netweight.entropy.decode import decode_chunk, decode_head
from netweight.entropy.stream import encode_section
from netweight.importance.stat import Stat


def moments(n: int, groups: int = 1, seed: int = 0) -> np.ndarray:
    """Second moments of correlated inputs of many sizes."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((groups, 3 * n, n)) * np.exp(random.normal(0, 1, (groups, 1, n)))
    x += np.exp(random.normal(0, 1, (groups, 1, 1))) * random.standard_normal((groups, 3 * n, 1))
    return np.swapaxes(x, 1, 2) @ x / (3 * n)


def layer(shape: tuple[int, ...], groups: int = 1, seed: int = 0) -> tuple[np.ndarray, Stat]:
    w = np.random.default_rng(seed + 1).standard_normal(shape).astype(np.float32)
    return w, Stat(2.0, inputs=moments(int(np.prod(shape[1:])), groups, seed))


def there_and_back(codec, w, stat, knob):
    """What comes back from bytes, and how many they are."""
    parts = codec.encode(w, stat, knob)
    head, chunks = encode_section([parts.streams["k"]], parts.bits)
    read = decode_head(head, [codec.layout(w.shape)])
    fine = [decode_chunk(read, p, c)[0].full() for p, c in zip(read.chunks(), chunks, strict=True)]
    stream = replace(parts.streams["k"], k=np.zeros(0, np.int16), levels=read.levels[0])
    back = codec.decode(replace(parts, streams={"k": stream}), {"k": np.concatenate(fine)}, w.shape)
    return back, len(head) + sum(map(len, chunks)) + 6 * len(chunks) + 19


def middling(w, stat) -> float:
    """A whitened step that gives some two bits a weight."""
    spectrum = Spectrum.of(matrix_of(w, stat))
    size = np.mean(np.square(spectrum.along(slice(None))), axis=(1, 2))[:, None] * spectrum.values
    return float(np.exp(0.5 * np.mean(np.log(size)))) * 0.7


def sensitivities(rows: int, spread: float, seed: int = 7) -> np.ndarray:
    """What the outputs of rows count for: log-normal, a row of none among them."""
    found = np.exp(np.random.default_rng(seed).normal(0, spread, rows))
    found[3] = 0.0
    return found


def drawn(random, rows: int, n: int, groups: int, bits: int, scale: float):
    """Targets, feedback, what the ridge has paid and rates, of no layer at all."""
    x = (random.standard_normal((n, rows)) * scale).astype(np.float32)
    m = np.triu(random.standard_normal((groups, n, n)) * 0.4, 1).astype(np.float32)
    paid = tuple(
        (random.random(shape) * most).astype(np.float32) for shape, most in (((groups, n), 0.5), ((rows,), 3.0))
    )
    return x, m, paid, random.random((6, 2 if bits else 1, 256)) * 900 + 60 * np.abs(np.arange(256) - 128)
