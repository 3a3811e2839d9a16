"""From weight error to output error through a stack of layers (Isik et al., perturbation theorem).

f(x) = W_d s(W_(d-1) ... s(W_1 x)) with s 1-Lipschitz and s(0) = 0, no biases. If every compressed layer has a norm no
larger than the original, then

    sup_{|x| <= 1} |f(x; W) - f(x; V)|  <=  prod_k |W_k| * sum_l |W_l - V_l| / |W_l|.

It holds for entry-wise l_1 norms with l_1 inputs and outputs, for the maximum column sum, and for Frobenius norms with
l_2. The condition cannot be dropped; |v_i| <= |w_i| for every weight is enough. Proof in docs/theory.md section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from netweight.theory.checks import Array, finite, refuse

Norm = Literal["l1", "column", "frobenius"]


def layer_norm(matrix: ArrayLike, norm: Norm = "l1") -> float:
    """Norm of one layer: sum of magnitudes, largest column sum, or Frobenius.

    Example:
        >>> layer_norm([[1, -2], [0, 3]]), layer_norm([[1, -2], [0, 3]], "column")
        (6.0, 5.0)
    """
    w = np.abs(finite("matrix", matrix))
    if w.ndim != 2:
        raise refuse(f"matrix has shape {w.shape}.", "Give (outputs, inputs); flatten a kernel first.")
    if norm == "l1":
        return float(w.sum())
    if norm == "column":
        return float(w.sum(axis=0).max(initial=0.0))
    if norm == "frobenius":
        return float(np.sqrt((w * w).sum()))
    raise refuse(f"norm is {norm!r}.", "Use l1, column or frobenius.")


def output_bound(layers: Sequence[ArrayLike], compressed: Sequence[ArrayLike], norm: Norm = "l1") -> float:
    """Bound the worst output error of a compressed stack of layers.

    prod_k |W_k| * sum_l |W_l - V_l| / |W_l|.

    Args:
        layers: W_1 .. W_d, each (outputs, inputs).
        compressed: V_1 .. V_d, same shapes, no layer of larger norm.
        norm: which of the three forms.

    Returns:
        Upper bound for inputs of norm at most 1 (l_1, or l_2 for "frobenius").

    Raises:
        ValueError: shapes that do not match, a zero layer, or a compressed layer whose norm has grown: the theorem is
            then false (two 1 x 1 layers going from 1 to 3 err by 8, not 4).

    Example:
        >>> output_bound([[[2.0]], [[3.0]]], [[[1.0]], [[3.0]]])
        3.0

    Source: Isik et al., perturbation theorem.
    """
    if len(layers) != len(compressed) or not layers:
        raise refuse(f"{len(layers)} layers, {len(compressed)} compressed.", "Give the same number, at least one.")
    product, total = 1.0, 0.0
    for index, (w, v) in enumerate(zip(layers, compressed, strict=True)):
        a, b = finite("layer", w), finite("compressed", v)
        if a.shape != b.shape:
            raise refuse(f"Layer {index} is {a.shape}, compressed {b.shape}.", "Give equal shapes.")
        size, size_v = layer_norm(a, norm), layer_norm(b, norm)
        if size == 0:
            raise refuse(f"Layer {index} is zero.", "The output is zero; there is no error to bound.")
        if size_v > size * (1 + 1e-12):
            raise refuse(
                f"Compressed layer {index} has {norm} norm {size_v:.6g}, the original {size:.6g}.",
                "Shrink it: the bound needs norms that do not grow.",
            )
        product *= size
        total += layer_norm(a - b, norm) / size
    return product * total


def forward(layers: Sequence[ArrayLike], inputs: ArrayLike, activation: Callable[[Array], Array]) -> Array:
    """Run the stack: activation between layers, none after the last; inputs (samples, features).

    Example:
        >>> forward([[[1.0], [-1.0]], [[1.0, 1.0]]], [[2.0], [-3.0]], lambda x: np.maximum(x, 0))
        array([[2.],
               [3.]])
    """
    x = finite("inputs", inputs)
    for index, w in enumerate(layers):
        x = (activation(x) if index else x) @ np.asarray(w, dtype=np.float64).T
    return x


def output_error(
    layers: Sequence[ArrayLike],
    compressed: Sequence[ArrayLike],
    rng: np.random.Generator,
    activation: Callable[[Array], Array],
    samples: int = 256,
    norm: Norm = "l1",
) -> float:
    """Search the worst output error over the unit ball: a lower estimate of the supremum that `output_bound` bounds.

    Unit vectors of both signs, then random points of the sphere, then shrinking random steps from the best.

    Args:
        layers: as `output_bound`.
        compressed: as `output_bound`.
        rng: source of the random points.
        activation: element-wise, 1-Lipschitz, zero at zero.
        samples: random points in each of 12 rounds.
        norm: "frobenius" measures with l_2, the others with l_1.

    Raises:
        ValueError: no layers.

    Example:
        >>> f = output_error([[[2.0]]], [[[1.5]]], np.random.default_rng(0), np.tanh)
        >>> print(f"{f:.3f}")
        0.500
    """
    if not layers:
        raise refuse("No layers.", "Give at least one.")
    order = 2 if norm == "frobenius" else 1
    width = np.shape(layers[0])[1]

    def gap(x: Array) -> Array:
        x = x / np.linalg.norm(x, order, axis=1, keepdims=True)
        return np.asarray(np.linalg.norm(forward(layers, x, activation) - forward(compressed, x, activation), order, 1))

    eye = np.eye(width)
    points = np.concatenate([eye, -eye, rng.laplace(size=(samples, width))])
    values = gap(points)
    best, top = points[int(values.argmax())], float(values.max())
    best = best / np.linalg.norm(best, order)
    for spread in 0.5 ** np.arange(12):
        points = best + spread / width * rng.laplace(size=(samples, width))
        values = gap(points)
        if float(values.max()) > top:
            best, top = points[int(values.argmax())], float(values.max())
            best = best / np.linalg.norm(best, order)
    return top
