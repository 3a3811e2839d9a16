"""What is known of the importance of one tensor."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from netweight.checkpoint.pages import give_back
from netweight.importance.optimism import NONE, Optimism

BLOCK = 1 << 18
TINY = float(np.finfo(np.float32).tiny)  # smaller numbers have no relative precision: they count as zeros

Matrix = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Stat:
    """The weight importance matrix I_w of one tensor: loss = 1/2 (w - w')^T I_w (w - w').

    One of four, each times `weight`:

        I_w = 1                       nothing is known
        I_w = diag(1 / w_i^2)         `relative`
        I_w = diag(I_i)               `diagonal`
        I_w = G (x) A                 `inputs` A and `outputs` G (the identity if None)

    A diagonal may come with a `quartic` term, and then loss = 1/2 weight (sum I_i e_i^2 + sum Q_i e_i^4), e = w - w'.
    A tensor of shape (O, I, K..) is the matrix of O rows and I K.. columns it is stored as; with groups, O / groups
    consecutive rows meet the same A.

    Attributes:
        weight: a factor of everything.
        relative: I_i = weight / w_i^2.
        diagonal: I_i / weight in the tensor's shape, float32; 0 or larger.
        quartic: Q_i in the tensor's shape, float32; 0 or larger. Only with a diagonal: a quarter of E[(d^2 L)^2] beside
            E[(d L)^2] is the gradient + Hessian objective of Gao et al. 2019.
        inputs: A, float64 or float32 [groups, n, n], n the columns: second moment of the inputs, times what makes the
            loss nats.
        outputs: G, float64 [O] for a diagonal or [O, O]: second moment of the outputs' gradients.
        samples: independent inputs that the statistics are a mean of.
        optimism: what errors shaped to A cost on new inputs, in the loss above, by rate; those not shaped cost it.
        spent: nobody looks at A after a codec was given it, so that the codec may overwrite it.
    """

    weight: float = 1.0
    relative: bool = False
    diagonal: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    quartic: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    inputs: Matrix | None = field(default=None, compare=False, repr=False)
    outputs: Matrix | None = field(default=None, compare=False, repr=False)
    samples: int = 0
    optimism: Optimism = field(default=NONE, repr=False)
    spent: bool = field(default=False, compare=False, repr=False)

    @property
    def is_flat(self) -> bool:
        """Whether all weights matter alike."""
        return not self.relative and self.diagonal is None and self.inputs is None

    def flat(self) -> "Stat":
        """Give the multiple of the identity with the same trace: the loss that independent errors of one size expect.

        >>> Stat(2.0, inputs=np.diag([1.0, 3.0])[None]).flat()
        Stat(weight=4.0, relative=False, samples=0)
        """
        if self.diagonal is not None:
            mean = float(np.mean(self.diagonal, dtype=np.float64))
        elif self.inputs is not None:
            mean = float(np.mean(np.diagonal(self.inputs, axis1=1, axis2=2), dtype=np.float64))
            if self.outputs is not None:
                mean *= float(np.mean(self.outputs if self.outputs.ndim == 1 else np.diagonal(self.outputs)))
        else:
            return self
        return Stat(self.weight * mean, samples=self.samples)

    def scaled(self, factor: float) -> "Stat":
        """Multiply the importance of the whole tensor."""
        return replace(self, weight=self.weight * factor)

    def loss(self, w: NDArray[np.float32], error: NDArray[np.floating]) -> float:
        """Half the quadratic form of an error.

        Args:
            w: the weights: all of them in the tensor's shape where importance has one, else any.
            error: of the same shape.

        >>> Stat(2.0).loss(np.ones(3, np.float32), np.array([0.5, 0.0, -0.5]))
        0.5
        >>> Stat(inputs=np.array([[[1.0, 0.5], [0.5, 1.0]]])).loss(np.ones((1, 2), np.float32), np.array([[1.0, 1.0]]))
        1.5
        """
        if self.inputs is not None:
            return 0.5 * self.weight * self._structured(error)
        total = 0.0
        flat, errors = w.reshape(-1), error.reshape(-1)
        factors = None if self.diagonal is None else self.diagonal.reshape(-1)
        fourth = None if self.quartic is None else self.quartic.reshape(-1)
        for at in range(0, flat.size, BLOCK):  # a tensor of any size needs no copy of itself
            e = errors[at : at + BLOCK].astype(np.float64)
            if self.relative:
                part = flat[at : at + BLOCK]
                e = np.divide(e, part, out=np.zeros_like(e), where=np.abs(part) >= TINY)
            e *= e
            total += float(np.sum(e)) if factors is None else float(np.dot(e, factors[at : at + BLOCK]))
            total += 0.0 if fourth is None else float(np.dot(e * e, fourth[at : at + BLOCK]))
            give_back(errors[at : at + BLOCK])
        return 0.5 * self.weight * total

    def _structured(self, error: NDArray[np.floating]) -> float:
        """Tr(G E A E^T), group by group."""
        assert self.inputs is not None
        groups, n, _ = self.inputs.shape
        e = error.reshape(-1, n)
        if self.outputs is not None and self.outputs.ndim == 2:
            parts = np.split(e.astype(self.inputs.dtype, copy=False), groups)
            through = np.concatenate([part @ a for part, a in zip(parts, self.inputs, strict=True)])
            return float(np.sum((self.outputs @ e.astype(np.float64)) * through))
        height, step = len(e) // groups, max(1, BLOCK // n)
        rows = np.empty(len(e))
        for first, a in zip(range(0, len(e), height), self.inputs, strict=True):
            for at in range(first, first + height, step):
                part = e[at : min(at + step, first + height)]
                through = part.astype(a.dtype, copy=False) @ a
                rows[at : at + len(part)] = np.einsum("ij,ij->i", part.astype(np.float64), through)
                give_back(e[at : at + len(part)])
        return float(np.sum(rows) if self.outputs is None else np.dot(rows, self.outputs))


PLAIN = Stat()


def mean_square(w: NDArray[np.float32]) -> float:
    """Give the mean of the squares of a contiguous array, in double precision, without a copy of it.

    Its halves are added as NumPy adds them (pairwise), so that it is `np.mean(np.square(w, dtype=float))` to the bit.

    >>> mean_square(np.array([1.0, 3.0], np.float32))
    5.0
    """
    return _square_sum(w.reshape(-1)) / w.size


def _square_sum(flat: NDArray[np.float32]) -> float:
    if flat.size <= BLOCK:
        return float(np.sum(np.square(flat, dtype=np.float64)))
    half = flat.size // 2
    half -= half % 8
    return _square_sum(flat[:half]) + _square_sum(flat[half:])


def largest_of(w: NDArray[np.float32]) -> float:
    """Give the largest magnitude of an array without a copy of it; NaN if it holds one.

    >>> largest_of(np.array([1.0, -3.0], np.float32))
    3.0
    """
    largest = 0.0
    flat = w.reshape(-1) if w.flags.c_contiguous else w.ravel(order="K")
    for at in range(0, flat.size, 4 * BLOCK):
        part = flat[at : at + 4 * BLOCK]
        largest = float(np.maximum(largest, max(float(part.max()), -float(part.min()))))
        give_back(part)
    return largest
