"""Element types against torch, which knows them all, and BF16 against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netweight.dtypes import (
    ALIGNMENT_ORDER,
    bits_per_element,
    from_float32,
    is_float,
    nbytes,
    storage_dtype,
    to_float32,
)
from netweight.errors import FormatError, UsageError

torch = pytest.importorskip("torch")
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
AWKWARD = np.array(
    [0.0, -0.0, 1.0, -1.5, 65504.0, 65520.0, 1e-8, 6e-8, 1e-40, 3.4e38, 3.3961775e38, np.inf, -np.inf, np.nan],
    np.float32,
)


def as_storage(tensor, code):
    return tensor.view(torch.uint16).numpy() if code == "BF16" else tensor.numpy()


@pytest.mark.parametrize("code", FLOATS)
def test_rounding_is_that_of_torch(code):
    random = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32).view(np.float32)
    values = np.concatenate([AWKWARD, random[~np.isnan(random)]])
    ours = from_float32(values, code)
    theirs = as_storage(torch.from_numpy(values).to(FLOATS[code]), code)
    number = ~np.isnan(values)
    assert ours.dtype == storage_dtype(code)
    np.testing.assert_array_equal(ours[number], theirs[number])
    assert np.isnan(to_float32(ours, code)[~number]).all()


@pytest.mark.parametrize("code", ["F16", "BF16"])
def test_every_16_bit_pattern_there_and_back(code):
    storage = np.arange(2**16, dtype=np.uint16).view(storage_dtype(code))
    wide = to_float32(storage, code)
    theirs = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(FLOATS[code]).float().numpy()
    np.testing.assert_array_equal(wide, theirs)
    number = ~np.isnan(wide)
    np.testing.assert_array_equal(from_float32(wide, code)[number], storage[number])
    assert np.isnan(to_float32(from_float32(wide, code), code)[~number]).all()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bf16_is_the_nearest_and_of_two_the_even_one(value):
    stored = int(from_float32(np.array([value], np.float32), "BF16")[0])
    magnitude = stored & 0x7FFF
    neighbours = [near for near in (magnitude - 1, magnitude, magnitude + 1) if 0 <= near <= 0x7F80]

    def real(pattern):  # the value of a pattern, that of infinity being the next power of two
        exponent, mantissa = pattern >> 7, pattern & 0x7F
        return Fraction(mantissa + (128 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 134)

    distances = {near: abs(real(near) - abs(Fraction(value))) for near in neighbours}
    best = min(distances.values())
    assert distances[magnitude] == best
    if sum(distance == best for distance in distances.values()) > 1:
        assert magnitude % 2 == 0
    assert stored >> 15 == np.signbit(np.float32(value))


@pytest.mark.parametrize("code", FLOATS)
def test_no_nan_becomes_a_number(code):
    patterns = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32)
    values = patterns.view(np.float32)
    stored = to_float32(from_float32(values, code), code)
    assert np.isnan(stored).all()
    np.testing.assert_array_equal(np.signbit(stored), np.signbit(values))


def test_nothing_is_copied_where_nothing_changes():
    values = np.ones(4, np.float32)
    assert to_float32(values, "F32") is values
    assert from_float32(values, "F32") is values


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (1, 1, 1)])
def test_shapes_stay(code, shape):
    storage = from_float32(np.full(shape, 1.5, np.float32), code)
    assert storage.shape == shape
    assert to_float32(storage, code).shape == shape
    assert (to_float32(storage, code) == 1.5).all()


def test_strided_input_is_taken():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-3]
    for code in FLOATS:
        np.testing.assert_array_equal(to_float32(from_float32(values, code), code), values)


def test_the_input_is_left_alone():
    storage = np.arange(100, dtype=np.uint16)
    storage.flags.writeable = False
    values = to_float32(storage, "BF16")
    values.flags.writeable = False
    from_float32(values, "BF16")
    assert (storage == np.arange(100)).all()


def test_sizes_are_those_of_torch():
    sizes = {
        "BOOL": "bool",
        "U8": "uint8",
        "I16": "int16",
        "BF16": "bfloat16",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
    }
    for code, name in sizes.items():
        itemsize = torch.empty((), dtype=getattr(torch, name)).element_size()
        assert bits_per_element(code) == 8 * itemsize
        assert storage_dtype(code).itemsize == itemsize
        assert nbytes(code, (3, 5)) == 15 * itemsize
    assert nbytes("F4", (2, 3)) == 3
    assert nbytes("F6_E2M3", (4,)) == 3
    assert nbytes("F32", (0, 10**30)) == 0
    assert len(ALIGNMENT_ORDER) == 22


def test_lossy_codecs_take_four_types():
    assert {code for code in ALIGNMENT_ORDER if is_float(code)} == set(FLOATS)
    assert not is_float("F128")


def test_what_cannot_be_is_refused():
    with pytest.raises(FormatError, match="12 bits"):
        nbytes("F4", (3,))
    for code in ("F128", "", "f32"):
        with pytest.raises(FormatError, match="unknown"):
            bits_per_element(code)
    for verb in (to_float32, from_float32):
        with pytest.raises(UsageError, match="F8_E4M3"):
            verb(np.zeros(3, np.uint8), "F8_E4M3")
