"""Decompositions in single precision: half the memory of double, and half the time or less."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from netweight.freed import give_back_freed

__all__ = ["LARGE", "cholesky", "eigh", "single"]

Array = NDArray[np.floating]

LARGE: Final = 640  # columns up to which double precision costs little
# Least share of a column's square that those after it must leave, for a matrix to be kept in single precision. That
# share is known to about 1e-6: the factors of A + mu are then those of double precision for any ridge mu.
APART: Final = 2.0**-10
SCALES: Final = (2.0**-60, 2.0**60)  # of the mean diagonal: squares of errors in it are numbers of single precision
# NumPy's public functions compute in double precision whatever they are given, what they call does not. Where that is
# missing they do as well, in more memory.
LAPACK: Any = getattr(np.linalg, "_umath_linalg", None)


def eigh(a: Array) -> tuple[Array, Array]:
    """Eigenvalues, ascending, and eigenvectors, in the precision of the matrix.

    Args:
        a: symmetric, [n, n] or a stack of them.

    Raises:
        numpy.linalg.LinAlgError: they are not found.

    >>> eigh(np.eye(2, dtype=np.float32))[1].dtype.name
    'float32'
    """
    if a.dtype != np.float32 or LAPACK is None:
        values, basis = np.linalg.eigh(a)
        return values, basis
    with np.errstate(all="ignore"):
        values, basis = LAPACK.eigh_lo(a)
    give_back_freed(3 * a.nbytes)  # its work space is the largest thing there is
    return _finite(values), basis


def cholesky(a: Array) -> Array:
    """Lower triangular L of a = L L^T, in the precision of the matrix.

    Args:
        a: symmetric, [n, n] or a stack of them.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite, as far as that precision can tell.

    >>> cholesky(np.full((1, 1), 4.0, np.float32)).tolist()
    [[2.0]]
    """
    if a.dtype != np.float32 or LAPACK is None:
        return np.asarray(np.linalg.cholesky(a))
    with np.errstate(all="ignore"):
        lower: Array = LAPACK.cholesky_lo(a)
    _finite(np.diagonal(lower, axis1=-2, axis2=-1))
    return lower


def single(a: Array, factor: float = 1.0) -> Array:
    """Give a stack of second moments in single precision if they are large and nothing is lost by it, else as they are.

    Args:
        a: [groups, n, n].
        factor: by which it will be multiplied.

    >>> single(np.eye(LARGE + 1)[None]).dtype.name, single(np.ones((1, LARGE + 1, LARGE + 1))).dtype.name
    ('float32', 'float64')
    """
    if a.shape[1] <= LARGE:
        return a
    diagonal = np.diagonal(a, axis1=1, axis2=2)
    scale = diagonal.mean(axis=1)
    least, most = float(scale.min()), float(scale.max())
    if not all(SCALES[0] < value < SCALES[1] for value in (least, most, least * factor, most * factor)):
        return a
    small = a.astype(np.float32)
    try:
        lower = cholesky(small[:, ::-1, ::-1])
    except np.linalg.LinAlgError:
        return a
    left = np.square(np.diagonal(lower, axis1=1, axis2=2)[:, ::-1], dtype=np.float64)
    return small if (left >= APART * diagonal).all() else a


def _finite(values: Array) -> Array:
    """Refuse the NaN that LAPACK gives in place of an error."""
    if not np.isfinite(values).all():
        raise np.linalg.LinAlgError("the matrix has no such decomposition in single precision")
    return values
