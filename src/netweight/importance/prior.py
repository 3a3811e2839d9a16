"""What is assumed of importance without data.

Matrices: the identity, plain squared error. A vector (bias, norm) acts on whole rows: an entry that is off by a
fraction of the vector's size moves its output as much as all weights of a row off by that fraction. So its entries
weigh

    I_i = E / mean(v^2),    E = median over the matrices of the mean energy of a row,

and where a vector is positive and spans more than four octaves, as variances do, I_i = E / v_i^2: what counts is each
entry's own relative error. One slope then gives vectors some eight bits an entry where matrices get three or four.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from netweight.checkpoint import Checkpoint
from netweight.dtypes import is_float, to_float32
from netweight.importance.stat import Stat

SAMPLE = 1 << 16
OCTAVES = 4.0


def prior(checkpoint: Checkpoint) -> Mapping[str, Stat]:
    """Importance of each float tensor when nothing was measured.

    Args:
        checkpoint: read in samples of at most 65,536 weights a matrix, vectors whole.
    """
    matrices = [i for i in checkpoint.infos.values() if is_float(i.dtype) and len(i.shape) >= 2 and i.size]
    rows = [_row_energy(checkpoint, info.name) for info in matrices]
    positive = [energy for energy in rows if energy > 0 and np.isfinite(energy)]
    energy = float(np.median(positive)) if positive else 0.0
    stats = {info.name: Stat() for info in matrices}
    for info in checkpoint.infos.values():
        if is_float(info.dtype) and len(info.shape) < 2 and info.size:
            stats[info.name] = _vector(to_float32(checkpoint.read(info.name), info.dtype), energy)
    return stats


def _row_energy(checkpoint: Checkpoint, name: str) -> float:
    info = checkpoint.infos[name]
    rows = checkpoint.read(name).reshape(info.shape[0], -1)
    chosen = rows[:: max(1, rows.size // SAMPLE)][: max(1, SAMPLE // max(1, rows.shape[1]))]
    sample = to_float32(np.ascontiguousarray(chosen), info.dtype)
    return float(np.sum(np.square(sample, dtype=np.float64))) / len(chosen)


def _vector(values: NDArray[np.float32], energy: float) -> Stat:
    v = values.astype(np.float64)
    if not np.isfinite(v).all() or not v.any() or energy == 0:
        return Stat()
    if spans(v, 2.0**OCTAVES):
        return Stat(energy, relative=True)
    return Stat(energy / float(np.mean(v * v)))


def spans(values: NDArray[np.floating], factor: float) -> bool:
    """Tell whether entries are sizes over such a range, as variances are: none negative, at most half of them zeros.

    >>> spans(np.array([0.0, 1e-4, 0.5, 3.0]), 16.0), spans(np.array([-1e-4, 0.5, 3.0]), 16.0)
    (True, False)
    """
    positive = values[values > 0]
    if 2 * positive.size < values.size or float(values.min()) < 0:
        return False
    return float(positive.max()) > factor * float(positive.min())
