"""Refusals in one form: a line of fact with the numbers, a line of remedy."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]


def refuse(fact: str, remedy: str) -> ValueError:
    """Build the exception for an argument that has no meaning; the caller raises it."""
    return ValueError(f"{fact}\n{remedy}")


def finite(name: str, values: ArrayLike) -> Array:
    """Return `values` as float64, refusing NaN and infinity."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise refuse(f"{name} has {bad} of {array.size} entries that are NaN or infinite.", "Remove them first.")
    return array


def vector(name: str, values: ArrayLike) -> Array:
    """Return `values` as a non-empty one-dimensional float64 array."""
    array = finite(name, values)
    if array.ndim != 1 or array.size == 0:
        raise refuse(f"{name} has shape {array.shape}.", "Give a one-dimensional array with at least one entry.")
    return array


def nonnegative(name: str, values: ArrayLike) -> Array:
    """Return `values` as float64 >= 0 of any shape; infinity passes (an infinite rate has distortion zero)."""
    array = np.asarray(values, dtype=np.float64)
    if np.isnan(array).any() or (array < 0).any():
        raise refuse(f"{name} has a smallest entry of {array.min()}.", "Give numbers that are zero or more.")
    return array


def positive(name: str, value: float) -> float:
    """Return a finite scalar > 0."""
    if not np.isfinite(value) or value <= 0:
        raise refuse(f"{name} is {value}.", "Give a finite number above zero.")
    return float(value)


def covariance(name: str, matrix: ArrayLike, size: int | None = None) -> Array:
    """Return a symmetric positive semidefinite matrix, allowing rounding of 1e-9 of its largest eigenvalue."""
    array = finite(name, matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or array.size == 0:
        raise refuse(f"{name} has shape {array.shape}.", "Give a square matrix.")
    if size is not None and array.shape[0] != size:
        raise refuse(f"{name} is {array.shape[0]} x {array.shape[0]}, the weights have {size} entries.", "Match them.")
    scale = float(np.abs(array).max())
    if not np.allclose(array, array.T, rtol=0, atol=1e-9 * scale):
        raise refuse(f"{name} is not symmetric.", "Average it with its transpose if that is what is meant.")
    array = (array + array.T) / 2
    lowest = float(np.linalg.eigvalsh(array)[0])
    if lowest < -1e-9 * max(scale, np.finfo(float).tiny) * array.shape[0]:
        raise refuse(f"{name} has the eigenvalue {lowest:.3g}.", "A covariance has no negative eigenvalue.")
    return array
