"""R(D) under each law against closed forms, sampling and SciPy; the account of a file; the gap that sums."""

import dataclasses
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import netweight as nw
from netweight.bound import MODELS, STATEMENT, bound
from netweight.bound.account import account
from netweight.bound.fit import fit
from netweight.bound.gap import TRELLIS, split
from netweight.bound.models import Components, least_loss, rate_nats
from netweight.codecs.registry import codecs
from netweight.errors import FormatError, UsageError
from netweight.importance.stat import Stat
from netweight.theory import scalar, trellis
from netweight.theory.scalar import GeneralizedGaussian

LN2 = np.log(2)
EVERY_LAW = pytest.mark.parametrize("model", MODELS)


def components(law, counts, capacities):
    found = Components.gaussian(np.array(counts, float), np.array(capacities, float))
    return found.as_laplace() if law == "laplace" else found


def one(w, **options):
    """The bound of a lone matrix."""
    return bound({"w": w}, {"w": Stat()}, **options)


class TestLaws:
    @pytest.mark.parametrize("bits", [0.3, 1.0, 2.0, 5.0])
    def test_gaussian_is_the_closed_form(self, bits):
        parts = components("gaussian", [1000], [4.0])
        loss = 0.5 * 1000 * 4.0 * 4.0**-bits
        assert rate_nats(parts, loss) == pytest.approx(1000 * bits * LN2)
        assert least_loss(parts, 1000 * bits * LN2) == pytest.approx(loss)

    @pytest.mark.parametrize("bits", [0.05, 0.5, 1.0, 2.0, 6.0])
    def test_laplacian_is_the_curve_of_the_theory(self, bits):
        parts = components("laplace", [1000], [2.0])
        loss = least_loss(parts, 1000 * bits * LN2)
        exact = float(scalar.rate_nats(GeneralizedGaussian.laplace(2.0), 2 * loss / 1000))
        assert exact == pytest.approx(bits * LN2, abs=1e-6)
        assert rate_nats(parts, loss) == pytest.approx(1000 * bits * LN2, rel=1e-6)

    def test_laplacians_together_are_reverse_water_filling(self):
        """Any other way to share the loss out over two groups costs more: SciPy searches for one."""
        parts = components("laplace", [100, 300], [4.0, 0.5])
        laws = [GeneralizedGaussian.laplace(v) for v in parts.capacities]

        def nats(share, loss):
            d = np.array([share, 1 - share]) * loss / (parts.counts / 2)
            return sum(n * float(scalar.rate_nats(law, x)) for n, law, x in zip(parts.counts, laws, d, strict=True))

        for loss in (5.0, 40.0, 150.0):
            shares = np.linspace(1e-3, 1 - 1e-3, 4001)
            best = min(nats(s, loss) for s in shares)
            assert rate_nats(parts, loss) == pytest.approx(best, abs=0.03)
            assert rate_nats(parts, loss) <= best + 0.01

    def test_gaussians_together_beat_every_split_that_scipy_finds(self):
        parts = components("gaussian", [10, 20, 30], [3.0, 0.5, 0.2])
        loss = 6.0

        def nats(logits):
            share = np.exp(logits) / np.exp(logits).sum()
            d = np.minimum(share * loss / (parts.counts / 2), parts.capacities)
            return float(np.sum(parts.counts / 2 * np.log(parts.capacities / d)))

        found = min(minimize(nats, start, method="Nelder-Mead").fun for start in np.eye(3) * 2)
        assert rate_nats(parts, loss) == pytest.approx(found, abs=0.02)

    @settings(max_examples=60)
    @given(
        law=st.sampled_from(["gaussian", "laplace"]),
        spreads=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
        share=st.floats(1e-4, 0.99),
        seed=st.integers(0, 1000),
    )
    def test_convex_decreasing_inverse_and_zero_at_the_end(self, law, spreads, share, seed):
        random = np.random.default_rng(seed)
        parts = components(law, random.integers(1, 100, len(spreads)), spreads)
        top = parts.largest_loss
        losses = share * top * np.array([0.5, 0.75, 1.0])
        rates = [rate_nats(parts, loss) for loss in losses]
        assert rates[0] > rates[1] >= rates[2] >= 0
        assert rates[1] <= (rates[0] + rates[2]) / 2 + 1e-6 * rates[0] + 1e-6
        assert least_loss(parts, rates[0]) == pytest.approx(losses[0], rel=1e-4)
        assert rate_nats(parts, top) == 0
        assert least_loss(parts, 0.0) == pytest.approx(top)

    def test_one_level_for_all_is_never_above_the_sum_of_each(self):
        random = np.random.default_rng(3)
        capacities, losses = random.uniform(0.1, 4, 5), random.uniform(0.2, 1.0, 5)
        for laws in (["gaussian"] * 5, ["laplace"] * 5, ["gaussian", "laplace"] * 2 + ["gaussian"]):
            parts = [components(law, [50], [c]) for law, c in zip(laws, capacities, strict=True)]
            alone = sum(rate_nats(p, loss) for p, loss in zip(parts, losses, strict=True))
            assert rate_nats(Components.join(parts), losses.sum()) <= alone + 1e-9


class TestFit:
    def test_rows_have_their_own_variance(self):
        scale = np.array([[0.1], [1.0], [5.0]])
        w = (scale * np.random.default_rng(0).standard_normal((3, 40_000)) + 2).astype(np.float32)
        found = fit(w, "F32", w.shape)
        assert found.mean == pytest.approx(2, abs=0.05)
        # The mean is the tensor's: where it is off by 0.02, the narrowest row's variance notices.
        assert np.sqrt(found.rows.variances) == pytest.approx(scale.ravel(), rel=0.03)

    def test_entropy_of_gaussian_and_laplacian_rows(self):
        random = np.random.default_rng(1)
        gaussian = random.standard_normal((64, 2000)).astype(np.float32)
        laplacian = random.laplace(size=(64, 2000)).astype(np.float32)
        assert fit(gaussian, "F32", gaussian.shape).entropy_nats == pytest.approx(1.4189, abs=0.01)
        exact = GeneralizedGaussian.laplace().entropy_nats
        assert fit(laplacian, "F32", laplacian.shape).entropy_nats == pytest.approx(exact, abs=0.01)

    def test_weights_stored_in_half_precision_have_an_entropy(self):
        w = np.random.default_rng(2).standard_normal((64, 2000))
        bf16 = (w.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        for storage, dtype in ((w.astype(np.float16), "F16"), (bf16, "BF16")):
            assert fit(storage, dtype, w.shape).entropy_nats == pytest.approx(1.4189, abs=0.012)

    def test_repeated_values_have_no_density(self):
        w = np.where(np.random.default_rng(3).random((64, 2000)) < 0.5, 0, 1).astype(np.float32)
        assert fit(w, "F32", w.shape).entropy_nats < -5, "only the dither of a storage step has one"
        found = one(w)
        assert found.rate_bits("entropy-rows", 1.0) == 0, "the trivial bound, not a wrong one"

    def test_few_weights_have_no_estimate(self):
        w = np.arange(20, dtype=np.float32)
        assert fit(w, "F32", w.shape).entropy_nats == -np.inf
        assert one(w).rate_bits("entropy-rows", 1e-6) == 0

    def test_short_rows_share_one_variance(self):
        w = np.random.default_rng(4).standard_normal((100, 9)).astype(np.float32)
        assert fit(w, "F32", w.shape).rows.counts.tolist() == [900.0]

    def test_kernels_have_the_covariance_they_were_drawn_with(self):
        random = np.random.default_rng(5)
        cov = 0.9 ** np.abs(np.subtract.outer(np.arange(9), np.arange(9)))
        w = (random.standard_normal((64, 128, 9)) @ np.linalg.cholesky(cov).T).astype(np.float32)
        found = fit(w, "F32", (64, 128, 3, 3))
        assert np.linalg.eigvalsh(found.rows.kernel) == pytest.approx(np.linalg.eigvalsh(cov), rel=0.06, abs=0.004)
        assert np.diag(found.rows.kernel).mean() == pytest.approx(1)

    def test_correlated_kernels_cost_what_the_determinant_says(self):
        """At high rate R(D) falls by 1/2 log2 of the determinant of the correlation, per kernel."""
        cov = np.array([[1, 0.8], [0.8, 1]])
        w = (np.random.default_rng(6).standard_normal((64, 256, 2)) @ np.linalg.cholesky(cov).T).astype(np.float32)
        found = bound({"w": w}, {"w": Stat()})
        loss = 0.5 * w.size * 1e-4
        less = found.rate_bits("gaussian-rows", loss) - found.rate_bits("gaussian-kernels", loss)
        assert less / w.size == pytest.approx(-np.log2(np.linalg.det(cov)) / 4, abs=0.005)


class TestFreeLunch:
    """No codec is below R(D) on weights that really are of the law."""

    @pytest.mark.core
    @pytest.mark.parametrize("bits", [0.7, 2.0, 4.0])
    @pytest.mark.parametrize("codec", [*(name for name in codecs() if name not in ("relative", "sparse")), "all"])
    def test_on_gaussian_rows(self, codec, bits):
        random = np.random.default_rng(7)
        w = (2.0 ** random.normal(0, 1, (128, 1)) * random.standard_normal((128, 512))).astype(np.float32)
        white = codec.startswith("feedback")  # which wants the second moment of the inputs: the identity says nothing
        stats = {"w": Stat(inputs=np.eye(512)[None]) if white else Stat()}
        curves = nw.sweep({"w": w}, stats, codecs=None if codec == "all" else [codec])
        plan = nw.allocate(curves, slope=curves["w"].points[0].loss / w.size / 4.0**bits)
        assert plan.choices["w"].codec != "exact"
        archive = nw.encode({"w": w}, plan, stats)
        found = one(w, archive=archive)
        for model in ("gaussian-rows", "gaussian-kernels"):
            assert found.spent_bits > found.rate_bits(model)
            assert found.loss > found.least_loss(model)
        refines = codec != "all" and codecs()[codec].progressive  # which costs a quarter of the rate at any rate
        most = 0.35 + 0.15 + 0.25 * bits * refines
        assert 8 * archive.nbytes - found.rate_bits("gaussian-rows") < most * w.size

    @pytest.mark.core
    def test_on_laplacian_weights_each_bound_is_below_the_file_and_laplace_is_nearest(self):
        w = np.random.default_rng(8).laplace(size=(256, 512)).astype(np.float32)
        found = one(w, archive=nw.compress({"w": w}, bits=3))
        rates = {model: found.rate_bits(model) / w.size for model in MODELS}
        spent = found.spent_bits / w.size
        assert rates["laplace"] < spent < rates["laplace"] + 0.12
        assert rates["entropy-rows"] < spent
        assert rates["entropy-rows"] == pytest.approx(rates["laplace"], abs=0.02)
        assert rates["gaussian"] > spent, "the Gaussian is the hardest law: its R(D) is no bound for Laplacian weights"


@pytest.fixture(scope="module")
def small(every_law):
    """A network of all kinds, and a file of it."""
    return every_law, nw.compress(every_law, bits=4)


class TestBound:
    @pytest.mark.core
    def test_which_tensors_have_a_law(self, small):
        tensors, archive = small
        outside = {t.name: t.outside for t in bound(tensors, archive=archive).tensors if t.outside}
        assert set(outside) == {"norm.running_var", "steps", "mask", "scalar", "empty"}
        assert outside["norm.running_var"] == "judged by relative error"
        assert outside["steps"] == "of dtype I64"

    @pytest.mark.core
    def test_losses_are_those_of_the_decoded_tensors(self, small):
        tensors, archive = small
        found = {t.name: t for t in bound(tensors, {"dense.weight": Stat(3.0)}, archive).tensors}
        apart = tensors["dense.weight"].astype(float) - archive["dense.weight"]
        assert found["dense.weight"].reached.error == pytest.approx(np.sum(apart**2))
        assert found["dense.weight"].reached.loss == pytest.approx(1.5 * np.sum(apart**2))

    @EVERY_LAW
    def test_importance_scales_the_loss_and_nothing_else(self, model):
        w = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
        plain, heavy = (bound({"w": w}, {"w": Stat(weight)}) for weight in (1.0, 7.0))
        assert heavy.rate_bits(model, 7 * 50.0) == pytest.approx(plain.rate_bits(model, 50.0), rel=1e-6)

    @EVERY_LAW
    def test_rate_and_loss_are_inverse_for_a_network(self, small, model):
        tensors, archive = small
        found = bound(tensors, archive=archive)
        bits = found.rate_bits(model)
        assert found.least_loss(model, bits) == pytest.approx(found.loss, rel=1e-3)
        assert bits <= sum(t.rate_bits[model] for t in found.modelled) * (1 + 1e-9)

    def test_without_a_file_there_are_curves(self, small):
        found = bound(small[0])
        assert found.account is None
        assert found.rate_bits("gaussian", 1.0) > found.rate_bits("gaussian", 2.0) > 0
        with pytest.raises(UsageError, match="no file whose bits"):
            split(found, "gaussian")

    def test_another_network_is_refused(self, small):
        tensors, archive = small
        fewer = {name: w for name, w in tensors.items() if name != "half"}
        with pytest.raises(UsageError, match=r"differ in 1 tensors, first in 'half'"):
            bound(fewer, archive=archive)

    @pytest.mark.core
    def test_a_damaged_file_is_refused(self, small, tmp_path):
        tensors, archive = small
        archive.save(tmp_path / "a.nwt")
        data = bytearray((tmp_path / "a.nwt").read_bytes())
        data[-200] ^= 1
        (tmp_path / "b.nwt").write_bytes(data)
        with pytest.raises(FormatError):
            bound(tensors, archive=tmp_path / "b.nwt")

    def test_says_what_it_is_not(self):
        assert "no bound for the trained weights as they are" in STATEMENT
        assert "one network has no rate-distortion function" in STATEMENT
        assert all(model.assumes.startswith("independent") for model in MODELS.values())


class TestGap:
    @pytest.mark.core
    @EVERY_LAW
    def test_parts_sum_to_the_file(self, small, model, tmp_path):
        """Parts come from chunks, tables and curves; the sum is compared with the size that the system tells."""
        tensors, archive = small
        archive.save(tmp_path / "a.nwt")
        gap = split(bound(tensors, archive=tmp_path / "a.nwt"), model)
        size_bits = 8 * os.stat(tmp_path / "a.nwt").st_size
        assert gap.bound_bits + sum(part.bits for part in gap.parts) == pytest.approx(size_bits, rel=1e-9)
        assert gap.total_bits == pytest.approx(sum(part.bits for part in gap.parts), abs=1e-3)

    @pytest.mark.core
    def test_parts_have_the_sizes_they_should(self, small):
        tensors, archive = small
        found = bound(tensors, archive=archive)
        parts = {part.id: part.bits for part in split(found, "gaussian-rows").parts}
        assert parts["header"] == 8 * archive.header_bytes
        assert parts["allocation"] >= 0
        assert 0 < parts["quantiser"] / sum(t.weights for t in found.modelled) < 0.27
        assert 0 <= parts["tables"] < 0.05 * found.spent_bits
        assert 0 < parts["coder"] < 0.05 * found.spent_bits
        exact = sum(s.spent for s in account(archive).tensors.values() if s.codec in ("exact", "relative"))
        assert parts["outside"] == pytest.approx(exact)

    @pytest.mark.core
    def test_ideal_cost_is_that_of_the_benchmark(self):
        """The same yardstick by a second way: from the codec's integers before coding, and from the decoded chunks."""
        overhead = pytest.importorskip("benchmarks.overhead")
        w = np.random.default_rng(2).laplace(size=(128, 512)).astype(np.float32)
        for codec in ("uniform", "trellis"):
            curves = nw.sweep({"w": w}, {"w": Stat()}, codecs=[codec])
            plan = nw.allocate(curves, bits=3)
            spent = account(nw.encode({"w": w}, plan, {"w": Stat()})).tensors["w"]
            parts = codecs()[codec].encode(w, Stat(), plan.choices["w"].knob)
            model, entropy = overhead.ideal_bits(parts.streams["k"], parts.bits)
            assert spent.ideal == pytest.approx(model, rel=1e-9)
            assert spent.entropy == pytest.approx(entropy, rel=1e-9)

    @pytest.mark.core
    def test_a_bad_allocation_shows(self):
        """Half of the tensors at a step four times too coarse: the loss is the same kind, the allocation is not."""
        random = np.random.default_rng(3)
        tensors = {name: random.standard_normal((256, 256)).astype(np.float32) for name in "ab"}
        stats = {name: Stat() for name in tensors}
        curves = nw.sweep(tensors, stats, codecs=["uniform"])
        good = nw.allocate(curves, bits=3)
        worse = nw.allocate(curves, bits=2)
        mixed = dataclasses.replace(good, choices={"a": good.choices["a"], "b": worse.choices["b"]})
        shares = []
        for plan in (good, mixed):
            found = bound(tensors, stats, nw.encode(tensors, plan, stats))
            parts = {part.id: part.bits for part in split(found, "gaussian").parts}
            shares.append(parts["allocation"] / found.weights)
        # D and 4 D instead of 2.5 D each: 1/2 log2(2.5 / 2) bit.
        assert shares[0] < 1e-3
        assert shares[1] == pytest.approx(0.5 * np.log2(1.25), abs=0.02)

    def test_trellis_reference_is_the_simulation(self):
        samples = np.random.default_rng(4).standard_normal((64, 512))
        nats, error = trellis.simulate(samples, 0.5, 256, passes=3)
        above = nats / LN2 - 0.5 * np.log2(np.mean(samples**2) / error)
        assert np.interp(nats / LN2, *np.array(TRELLIS).T) == pytest.approx(above, abs=0.012)
        assert TRELLIS[-1][1] == pytest.approx(trellis.gap_bits(trellis.MEASURED_GAIN_DB[256]), abs=5e-4)


@pytest.mark.parametrize(("name", "bits"), [("cifar10/resnet20.safetensors", 3.0)])
@pytest.mark.slow
def test_real_network(real, name, bits, tmp_path):
    source = real(name)
    nw.compress(source, tmp_path / "a.nwt", bits=bits)
    found = bound(source, archive=tmp_path / "a.nwt")
    gap = split(found, "gaussian-kernels")
    whole = 8 * os.stat(tmp_path / "a.nwt").st_size
    assert gap.bound_bits + sum(part.bits for part in gap.parts) == pytest.approx(whole, rel=1e-9)
    assert 0.05 < (found.spent_bits - gap.bound_bits) / found.weights < 0.35
