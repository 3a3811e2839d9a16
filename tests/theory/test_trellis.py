"""The trellis reference: codes, Viterbi against enumeration, gains against the literature."""

from itertools import product

import numpy as np
import pytest

from netweight.theory import ecsq, scalar, trellis


@pytest.mark.parametrize("states", list(trellis.PARITY))
def test_machines_are_permutations_with_alternating_codebooks(states):
    machine = trellis.Machine.of(states)
    assert np.bincount(machine.following.ravel()).tolist() == [2] * states
    assert (machine.subset % 2 == np.arange(states)[:, None] % 2).all()
    # Both branches into a state carry subsets of one codebook, D0/D2 or D1/D3: Ungerboeck's rule.
    for state in range(states):
        arriving = machine.subset[machine.following == state]
        assert arriving[0] % 2 == arriving[1] % 2
        assert arriving[0] != arriving[1]


@pytest.mark.parametrize("states", [4, 8])
def test_paths_satisfy_the_parity_check(states):
    """h1(D) z1 + h0(D) z0 = 0 (mod 2) along any path."""
    h1, h0 = trellis.PARITY[states]
    machine, rng = trellis.Machine.of(states), np.random.default_rng(0)
    _, subset = machine.best_paths(rng.random((1, 60, 4)))
    z0, z1 = subset[0] & 1, subset[0] >> 1
    memory = states.bit_length() - 1
    for t in range(memory, 60):
        taps = [((h1 >> i) & 1) * z1[t - i] + ((h0 >> i) & 1) * z0[t - i] for i in range(memory + 1)]
        assert sum(taps) % 2 == 0


def test_viterbi_against_all_paths():
    machine, rng = trellis.Machine.of(8), np.random.default_rng(1)
    cost = rng.random((3, 9, 4))
    _, subset = machine.best_paths(cost)
    for row in range(3):
        best = np.inf
        for inputs in product((0, 1), repeat=9):
            state, total = 0, 0.0
            for t, bit in enumerate(inputs):
                total += cost[row, t, machine.subset[state, bit]]
                state = machine.following[state, bit]
            best = min(best, total)
        assert np.take_along_axis(cost[row], subset[row][:, None], axis=1).sum() == pytest.approx(best)


@pytest.mark.parametrize("states", [4, 8, 32])
def test_granular_gain_is_the_recorded_one(states):
    gain = trellis.granular_gain_db(states, np.random.default_rng(3), 64, 1024)
    assert gain == pytest.approx(trellis.MEASURED_GAIN_DB[states], abs=0.04)  # standard error 0.012


def test_the_recorded_gain_of_256_states_is_the_published_one():
    ceiling = 10 * np.log10(np.pi * np.e / 6)
    assert ceiling - trellis.MEASURED_GAIN_DB[256] == pytest.approx(trellis.PUBLISHED_GAP_DB[256], abs=0.01)
    gains = list(trellis.MEASURED_GAIN_DB.values())
    assert gains == sorted(gains)
    assert gains[-1] < ceiling
    assert trellis.gap_bits(ceiling) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("law", [scalar.GeneralizedGaussian.gaussian(), scalar.GeneralizedGaussian.laplace()])
def test_the_trellis_lies_between_the_curve_and_the_scalar_quantiser(law):
    x = law.sample(2**16, np.random.default_rng(4)).reshape(128, 512)
    rate, distortion = trellis.simulate(x, 0.5, 8)
    limit = float(scalar.rate_nats(law, distortion))
    independent = ecsq.best(law, distortion).rate_nats
    assert limit + 0.05 < rate < independent - 0.03
    assert (rate - limit) / np.log(2) < 0.17


def test_refusals():
    with pytest.raises(ValueError, match="Use one of"):
        trellis.Machine.of(5)
    with pytest.raises(ValueError, match="sequences"):
        trellis.simulate(np.zeros(4), 1.0, 4)
