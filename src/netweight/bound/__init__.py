"""Stage 8, how far from the limit: R(D) of the weights under stated laws, and where the gap of a file goes.

models    the laws, and R(D) of tensors of many spreads together
fit       mean, spread and entropy of a tensor's weights
spread    variances and importance to independent components
ignorant  the rate of a decoder that does not know the input covariance
account   what a file spends on each tensor, and for what
core      `bound`
gap       the split of what a file spends above R(D)
"""

from netweight.bound.core import STATEMENT, UNKNOWN, Bound, Reached, TensorBound, bound
from netweight.bound.models import MODELS, Model

__all__ = ["MODELS", "STATEMENT", "UNKNOWN", "Bound", "Model", "Reached", "TensorBound", "bound"]
