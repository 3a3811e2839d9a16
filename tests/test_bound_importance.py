"""R(D) under a measured importance: against eigenvalues of the whole matrix, against theory, against codecs."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netweight as nw
from netweight.bound import MODELS, bound
from netweight.bound.fit import fit
from netweight.bound.gap import split
from netweight.bound.models import Components, least_loss, rate_nats
from netweight.bound.spread import Rows, binned, components
from netweight.importance.stat import Stat
from netweight.theory import correlated, gaussian, universal

LN2 = np.log(2)


def matrix(random, n, spread=3.0):
    """A covariance whose eigenvalues span `spread` octaves or so."""
    root = random.standard_normal((n, n)) * 2.0 ** random.uniform(-spread / 2, spread / 2, n)
    return root @ root.T / n


def whole(rows, stat, spread, length):
    """Eigenvalues of Sigma_W I_w, written out for every weight."""
    outputs = round(float(rows.counts.sum())) // length
    per_row = spread != "tensor" and rows.counts.size > 1
    variances = rows.variances if per_row else np.full(outputs, rows.variance)
    kernel = rows.kernel if spread in ("kernels", "inputs") else np.ones((1, 1))
    columns = np.kron(np.eye(length // len(kernel)), kernel)
    sigma = np.kron(np.diag(variances), columns)
    if stat.diagonal is not None:
        importance = np.diag(stat.diagonal.reshape(-1).astype(float))
    else:
        groups = len(stat.inputs)
        height = outputs // groups
        g = np.eye(outputs) if stat.outputs is None else stat.outputs
        g = np.diag(g) if g.ndim == 1 else g
        importance = np.zeros((outputs * length, outputs * length))
        for j, a in enumerate(stat.inputs):
            mine = slice(j * height, (j + 1) * height)
            place = slice(j * height * length, (j + 1) * height * length)
            importance[place, place] = np.kron(g[mine, mine], a)
    return correlated.components(sigma, stat.weight * importance)


class TestComponents:
    """Products of small spectra are the spectrum of the large matrix."""

    @pytest.mark.parametrize("spread", ["tensor", "rows", "kernels", "inputs"])
    @pytest.mark.parametrize("kind", ["diagonal", "inputs", "rows", "outputs", "groups"])
    @pytest.mark.parametrize("seed", [0, 1])
    def test_are_the_eigenvalues_of_the_whole(self, spread, kind, seed):
        random = np.random.default_rng(seed)
        outputs, positions, length = 6, 3, 12
        rows = Rows(np.full(outputs, 12.0), random.uniform(0.2, 3, outputs), matrix(random, positions))
        stat = {
            "diagonal": Stat(2.0, diagonal=random.uniform(0, 4, (outputs, length)).astype(np.float32)),
            "inputs": Stat(2.0, inputs=matrix(random, length)[None]),
            "rows": Stat(2.0, inputs=matrix(random, length)[None], outputs=random.uniform(0.1, 2, outputs)),
            "outputs": Stat(0.5, inputs=matrix(random, length)[None], outputs=matrix(random, outputs)),
            "groups": Stat(inputs=np.array([matrix(random, length) for _ in range(3)])),
        }[kind]
        if stat.inputs is not None:
            rows = Rows(rows.counts, rows.variances, rows.kernel, np.linalg.eigvalsh(stat.inputs))
        found = components(rows, stat, spread)
        assert np.sort(np.repeat(found.capacities, found.counts.astype(int))) == pytest.approx(
            np.sort(whole(rows, stat, spread, length)), rel=1e-6, abs=1e-9
        )

    @pytest.mark.parametrize("many", [False, True])
    def test_diagonal_importance_is_theorem_2(self, many):
        """Independent weights with importances of their own: weighted reverse water-filling, weight by weight."""
        random = np.random.default_rng(2)
        shape = (40, 300) if many else (4, 30)
        importance = 2.0 ** random.normal(0, 2, shape)
        w = (random.standard_normal(shape) * 2.0 ** random.normal(0, 1, (shape[0], 1))).astype(np.float32)
        found = fit(w, "F32", shape, Stat(3.0, diagonal=importance.astype(np.float32)))
        variances = np.repeat(found.rows.variances, shape[1])
        parts = found.components("gaussian-rows")
        for share in (0.5, 0.1, 1e-3):
            loss = share * parts.largest_loss
            exact = float(gaussian.rate_nats(variances, loss, weights=1.5 * importance.astype(np.float32).reshape(-1)))
            assert rate_nats(parts, loss) == pytest.approx(exact, rel=1e-5)
            assert least_loss(parts, exact) == pytest.approx(loss, rel=1e-4)

    def test_directions_have_the_variances_they_were_drawn_with(self):
        random = np.random.default_rng(3)
        a = matrix(random, 16)
        values, basis = np.linalg.eigh(a)
        wanted = 2.0 ** random.normal(0, 1, 16)
        wanted /= wanted.mean()
        w = ((random.standard_normal((4000, 16)) * np.sqrt(wanted)) @ basis.T).astype(np.float32)
        found = fit(w, "F32", w.shape, Stat(inputs=a[None]))
        # Rows are scaled to variance one, which takes the largest directions down a little.
        assert found.rows.directions[0] == pytest.approx(wanted, rel=0.25)
        free = bound({"w": w}, {"w": Stat(inputs=a[None])})
        loss = 0.02 * float(np.sum(wanted * values)) / 2 * 4000
        exact = 4000 * float(gaussian.rate_nats(wanted * values, 2 * loss / 4000)) / LN2
        assert free.rate_bits("gaussian-inputs", loss) == pytest.approx(exact, rel=0.03)

    def test_classes_keep_the_rate(self):
        random = np.random.default_rng(4)
        capacities = 2.0 ** random.normal(0, 4, 50_000)
        capacities[:100] = 0
        parts = binned(np.ones(50_000), capacities)
        assert parts.counts.sum() == 50_000
        assert parts.counts.size < 12_000
        for share in (0.3, 1e-2, 1e-6):
            loss = share * capacities.sum() / 2
            assert rate_nats(parts, loss) == pytest.approx(float(gaussian.rate_nats(capacities / 2, loss)), rel=1e-5)


class TestBound:
    def test_the_oracle_of_figure_6(self):
        """Gao et al., Figure 6: one row of three weights, inputs of variances 3, 2 and 1, at D = 5."""
        rows = Rows(np.array([3.0]), np.array([1.0]), np.ones((1, 1)), np.array([[1.0, 4.0, 9.0]]))
        stat = Stat(2.0, inputs=np.diag([1.0, 4.0, 9.0])[None])
        parts = components(rows, stat, "rows")
        for loss, nats in ((3.0, 1.79175947), (5.0, 1.09861229), (9.0, 0.40546511), (13.0, 0.05889152), (14.0, 0.0)):
            assert rate_nats(parts, loss) == pytest.approx(nats, abs=5e-9)

    @pytest.mark.core
    @pytest.mark.parametrize("kind", ["diagonal", "inputs", "outputs"])
    def test_no_codec_is_below_it(self, kind):
        random = np.random.default_rng(5)
        shape = (128, 96)
        stat = {
            "diagonal": Stat(diagonal=(2.0 ** random.normal(0, 1.5, shape)).astype(np.float32)),
            "inputs": Stat(inputs=matrix(random, 96)[None]),
            "outputs": Stat(inputs=matrix(random, 96)[None], outputs=matrix(random, 128)),
        }[kind]
        w = random.standard_normal(shape).astype(np.float32)
        for bits in (1.5, 3.0):
            archive = nw.compress({"w": w}, bits=bits, importance={"w": stat})
            found = bound({"w": w}, {"w": stat}, archive)
            assert found.loss == pytest.approx(stat.loss(w, w.astype(float) - archive["w"]), rel=1e-6)
            for model in ("gaussian-rows", "gaussian"):
                assert found.spent_bits > found.rate_bits(model)
                assert found.loss > found.least_loss(model)

    @pytest.mark.core
    @pytest.mark.parametrize("model", MODELS)
    def test_parts_sum_to_the_file(self, model, tmp_path):
        """With an importance that the codec cannot use, what that costs has a part of its own, about AM over GM."""
        random = np.random.default_rng(6)
        a = np.diag(2.0 ** random.normal(0, 1, 64))
        tensors = {"w": random.standard_normal((300, 64)).astype(np.float32), "v": np.ones(5, np.float32)}
        stats = {"w": Stat(inputs=a[None])}
        plan = nw.allocate(nw.sweep(tensors, stats, codecs=["uniform"]), bits=4)
        nw.encode(tensors, plan, stats).save(tmp_path / "a.nwt")
        found = bound(tensors, stats, tmp_path / "a.nwt")
        gap = split(found, model)
        size_bits = 8 * os.stat(tmp_path / "a.nwt").st_size
        assert gap.bound_bits + sum(part.bits for part in gap.parts) == pytest.approx(size_bits, rel=1e-9)
        unused = next(part.bits for part in gap.parts if part.id == "importance") / found.weights
        price = 0.5 * np.log2(np.mean(np.diag(a))) - 0.5 * np.mean(np.log2(np.diag(a)))
        assert unused == pytest.approx(price, abs=0.02)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), share=st.floats(1e-3, 0.9))
    def test_the_gaussian_is_the_hardest_law_and_shannon_the_lowest(self, seed, share):
        random = np.random.default_rng(seed)
        w = random.laplace(size=(40, 24)).astype(np.float32)
        stat = Stat(inputs=matrix(random, 24)[None], outputs=matrix(random, 40))
        found = fit(w, "F32", w.shape, stat)
        loss = share * found.components("gaussian-rows").largest_loss
        rates = {model: rate_nats(found.components(model), loss) for model in MODELS}
        assert rates["laplace-rows"] <= rates["gaussian-rows"]
        assert rates["laplace"] <= rates["gaussian"]
        # At high rate it is h(W) + 1/2 ln |I_w| less the Gaussian's entropy: the laws differ by their entropies alone.
        less = [rate_nats(found.components(m), loss * 1e-12) for m in ("gaussian", "laplace")]
        assert (less[0] - less[1]) / w.size == pytest.approx(0.5 * np.log(np.pi / np.e), abs=1e-3)

    def test_rows_that_couple_different_inputs_are_outside(self):
        random = np.random.default_rng(7)
        w = random.standard_normal((32, 20)).astype(np.float32)
        inputs = np.array([matrix(random, 20), matrix(random, 20)])
        apart = np.kron(np.eye(2), matrix(random, 16))
        assert not bound({"w": w}, {"w": Stat(inputs=inputs, outputs=apart)}).tensors[0].outside
        coupled = bound({"w": w}, {"w": Stat(inputs=inputs, outputs=matrix(random, 32))})
        assert "couples rows" in coupled.tensors[0].outside


class TestIgnorant:
    """A decoder that does not know the inputs."""

    def test_one_row_is_the_theory(self):
        random = np.random.default_rng(8)
        a = matrix(random, 32)
        w = random.standard_normal((1, 32)).astype(np.float32)
        found = bound({"w": w}, {"w": Stat(inputs=a[None])})
        variance = found.tensors[0].fit.rows.variance
        for share in (0.5, 0.1, 0.01):
            loss = share * variance * np.trace(a) / 2
            exact = float(universal.rate_nats(np.linalg.eigvalsh(a), 2 * loss, variance))
            assert found.universal_bits(loss) * LN2 == pytest.approx(exact, rel=1e-3)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 10_000), share=st.floats(1e-4, 0.95))
    def test_costs_at_most_a_ninth_of_a_bit(self, seed, share):
        random = np.random.default_rng(seed)
        tensors = {name: random.standard_normal((24, 16)).astype(np.float32) for name in "abc"}
        stats = {
            "a": Stat(inputs=matrix(random, 16, 8)[None], outputs=random.uniform(0.1, 1, 24)),
            "b": Stat(inputs=matrix(random, 16, 2)[None], outputs=matrix(random, 24)),
            "c": Stat(0.3),
        }
        found = bound(tensors, stats)
        assert found.inputs
        loss = share * sum(t.fit.components("gaussian-rows").largest_loss for t in found.tensors)
        price = (found.universal_bits(loss) - found.rate_bits("gaussian-rows", loss)) / found.weights
        assert -1e-4 <= price <= 0.11

    def test_costs_nothing_where_inputs_are_white_or_unknown(self):
        w = np.random.default_rng(9).standard_normal((30, 20)).astype(np.float32)
        for stat in (Stat(2.0), Stat(inputs=2 * np.eye(20)[None])):
            found = bound({"w": w}, {"w": stat})
            assert found.universal_bits(50.0) == pytest.approx(found.rate_bits("gaussian-rows", 50.0), rel=1e-3)
        assert not bound({"w": w}, {"w": Stat()}).inputs


def test_components_of_no_tensor_join():
    nothing = Components.gaussian(np.zeros(0), np.zeros(0))
    assert Components.join([nothing]).largest_loss == 0
