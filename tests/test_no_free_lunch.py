"""No codec beats Shannon: whole files against the R(D) of sources. A bit that is not counted shows here."""

import math
from functools import cache

import numpy as np
import pytest

import netweight as nw
from netweight.codecs.base import Point, index_of
from netweight.codecs.codebook import FREE
from netweight.codecs.registry import codecs
from netweight.codecs.sparse import knob_of
from netweight.importance.stat import Stat
from netweight.theory import discrete, gaussian
from netweight.theory.scalar import GeneralizedGaussian, rate_nats

SHAPE = (512, 512)
N = SHAPE[0] * SHAPE[1]
LOSSY = sorted(set(codecs()) - {"relative"})  # which takes short positive vectors


@cache
def source(kind: str) -> np.ndarray:
    random = np.random.default_rng(5)
    if kind == "gaussian":
        w = random.normal(size=SHAPE)
    elif kind == "laplace":
        w = random.laplace(size=SHAPE)
    else:
        w = np.where(random.random(SHAPE) < 0.1, 1.0, 0.0)
    return w.astype(np.float32)


@cache
def coded(kind: str, codec: str, step: float) -> tuple[float, float]:
    """Bits a weight of the whole file, and mean squared error of what comes out of it."""
    w = source(kind)
    knob = {"codebook": index_of(step) - FREE, "sparse": knob_of(min(0.15 / step, 0.9), 6)}.get(codec, index_of(step))
    # White inputs, which codecs that shape errors ask for; the loss is then half the squared error as for the others.
    stats = {"w": Stat(inputs=np.eye(SHAPE[1])[None])} if codec.startswith("feedback") else {"w": Stat()}
    archive = nw.encode({"w": w}, nw.Plan({"w": Point(0, 0, codec, knob)}, 0.0), stats)
    error = w.astype(np.float64) - archive["w"]
    return 8 * archive.nbytes / N, float(np.mean(error * error))


def gaussian_bits(w: np.ndarray, distortion: float) -> float:
    """R(D) of a Gaussian of the sample's own variance: the sample is no luckier than its source then."""
    return float(gaussian.rate_nats([np.mean(np.square(w, dtype=np.float64))], distortion)) / math.log(2)


STEPS = [0.06, 0.2, 0.6, 1.0, 1.6, 2.4]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("codec", LOSSY)
def test_gaussian(codec, step):
    bits, distortion = coded("gaussian", codec, step)
    assert bits >= gaussian_bits(source("gaussian"), distortion)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("codec", LOSSY)
def test_laplace(codec, step):
    """Shannon's lower bound, h - 1/2 log2(2 pi e D), in closed form, and R(D), which is above it at low rates."""
    bits, distortion = coded("laplace", codec, step)
    scale = float(np.mean(np.abs(source("laplace").astype(np.float64))))
    bound_bits = math.log2(2 * math.e * scale) - 0.5 * math.log2(2 * math.pi * math.e * distortion)
    exact_bits = float(rate_nats(GeneralizedGaussian.laplace(2 * scale**2), distortion)) / math.log(2)
    assert exact_bits >= bound_bits - 1e-3
    assert bits >= max(exact_bits, bound_bits)


@cache
def bernoulli_tangents(p: float) -> list[discrete.Solution]:
    outputs = np.linspace(-0.2, 1.2, 141)
    cost = np.square(np.array([0.0, 1.0])[:, None] - outputs)
    return [discrete.solve([1 - p, p], cost, slope, tolerance_nats=1e-6) for slope in np.geomspace(1, 300, 25)]


@pytest.mark.parametrize("step", [0.1, 0.6, 0.9, 1.3])
@pytest.mark.parametrize("codec", LOSSY)
def test_bernoulli(codec, step):
    """Zeros and ones under squared error: R(D) by Blahut and Arimoto over any outputs, exact at D = 0."""
    w = source("bernoulli")
    bits, distortion = coded("bernoulli", codec, step)
    p = float(w.mean())
    entropy_bits = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    bound_bits = max(float(s.lower_bound_nats(distortion)) / math.log(2) for s in bernoulli_tangents(p))
    assert bound_bits <= entropy_bits + 1e-6
    assert bits >= bound_bits
    assert bits >= entropy_bits or distortion > 1e-12


@pytest.mark.parametrize("p", [0.5, 0.1, 0.01])
def test_lossless_files_are_not_below_the_entropy(p):
    """Of the class of sequences with so many ones, by counting them."""
    w = np.random.default_rng(0).random(SHAPE) < p
    ones = int(w.sum())
    count_bits = (math.lgamma(N + 1) - math.lgamma(ones + 1) - math.lgamma(N - ones + 1)) / math.log(2)
    for source in ({"w": w}, {"w": w.astype(np.float32)}, {"w": w.astype(np.int64)}):
        archive = nw.compress(source, slope=0.0, codecs=["exact"])
        assert np.array_equal(archive["w"], source["w"])
        assert 8 * archive.nbytes >= count_bits


def test_lossless_noise_does_not_shrink():
    w = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    archive = nw.compress({"w": w}, slope=0.0)
    assert np.array_equal(archive["w"], w)
    assert N <= archive.nbytes <= 1.001 * N + 400


@pytest.mark.parametrize(("codec", "gap_bits"), [("trellis", 0.12), ("uniform", 0.30)])
def test_three_bits_of_a_gaussian(codec, gap_bits):
    """At 3 bits a weight the trellis leaves at most 0.12 bit to R(D), the uniform grid 0.30; file and all."""
    step = {"trellis": 0.282, "uniform": 0.514}[codec]
    bits, distortion = coded("gaussian", codec, step)
    assert bits == pytest.approx(3, abs=0.05)
    assert 0 < bits - gaussian_bits(source("gaussian"), distortion) <= gap_bits
