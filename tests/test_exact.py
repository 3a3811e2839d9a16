"""The exact codec: every bit of every dtype back, at a known price, and only FormatError from damaged sections."""

import hashlib
import os
import subprocess
import sys
from math import lgamma, log
from pathlib import Path

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import dtypes, kernels
from netweight.codecs.exact import Exact
from netweight.entropy import fields, planes_levels
from netweight.entropy.planes import (
    FLOATS,
    RAW,
    WORDS,
    ZLIB,
    decode_planes_chunk,
    decode_planes_head,
    encode_planes,
    predicted_bits,
    storage_size,
)
from netweight.entropy.planes_levels import FORMATS, LARGEST_LEVELS
from netweight.entropy.small import Reader
from netweight.errors import FormatError
from netweight.kernels_counts import entropy

pytestmark = pytest.mark.core

WHOLE = [code for code in dtypes.ALIGNMENT_ORDER if dtypes.bits_per_element(code) >= 8]
REAL = Path(__file__).parents[2] / "shared" / "data" / "cifar10" / "resnet20.safetensors"


def size_of(section):
    return len(section[0]) + sum(map(len, section[1]))


def there_and_back(arrays, dtype, shapes=None):
    """Encode, decode chunk by chunk, last chunk first, and compare; gives the section."""
    head, chunks = encode_planes(arrays, dtype)
    shapes = [a.shape for a in arrays] if shapes is None else shapes
    read = decode_planes_head(head, dtype, shapes)
    plan = read.chunks()
    assert len(plan) == len(chunks)
    out = [np.zeros(a.size, a.dtype) for a in arrays]
    for pieces, chunk in list(zip(plan, chunks, strict=True))[::-1]:
        for p, part in zip(pieces, decode_planes_chunk(read, pieces, chunk), strict=True):
            assert part.dtype == dtypes.storage_dtype(dtype)
            assert part.shape == (p.size,)
            out[p.tensor][p.start : p.start + p.size] = part
    for a, b in zip(arrays, out, strict=True):
        assert a.tobytes() == b.tobytes()
    return head, chunks


def bits_each(arrays, dtype):
    return 8 * size_of(there_and_back(arrays, dtype)) / sum(a.size for a in arrays)


def random_storage(rng, dtype, size):
    kind = dtypes.storage_dtype(dtype)
    if dtype == "BOOL":
        return rng.integers(0, 2, size).astype(np.bool_)
    return np.frombuffer(rng.bytes(size * kind.itemsize), kind).copy()


def weights(rng, *shape, dtype="F32", scale=0.02):
    """Gaussian weights whose rows differ in scale."""
    rows = np.exp(rng.normal(0, 1, (shape[0], *[1] * (len(shape) - 1))))
    return dtypes.from_float32((rng.normal(0, scale, shape) * rows).astype(np.float32), dtype)


# ---- round trips


@st.composite
def pools(draw):
    """A dtype, and arrays of it: random bits, few values, sparse, rising, or floats of all scales."""
    dtype = draw(st.sampled_from(WHOLE))
    kind = dtypes.storage_dtype(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shapes = draw(st.lists(st.lists(st.integers(0, 9), max_size=4).map(tuple), min_size=1, max_size=6))
    if draw(st.booleans()):
        shapes.append((draw(st.integers(1, 70)), draw(st.integers(1, 70))))
    arrays = []
    for shape in shapes:
        n = int(np.prod(shape))
        how = draw(st.sampled_from(["bits", "few", "sparse", "rising", "tails"]))
        x = random_storage(rng, dtype, n)
        if how == "few" and n:
            x = x[rng.integers(0, min(n, 5), n)]
        elif how == "sparse":
            x[rng.random(n) < 0.9] = 0
        elif how == "rising" and dtype != "BOOL":
            with np.errstate(all="ignore"):
                x = (np.arange(n) * int(rng.integers(1, 9))).astype(np.uint64).astype(f"u{kind.itemsize}").view(kind)
        elif how == "tails" and dtype != "BOOL":
            words = x.view(np.uint8).reshape(n, kind.itemsize).copy()
            words[:, : kind.itemsize // 2] = 0
            x = words.reshape(-1).view(kind)
        arrays.append(x.reshape(shape))
    return dtype, arrays


@given(pools())
@settings(max_examples=150, deadline=None)
def test_every_bit_comes_back(pool):
    dtype, arrays = pool
    head, chunks = there_and_back(arrays, dtype)
    assert size_of((head, chunks)) <= 1 + sum(a.nbytes for a in arrays)
    assert encode_planes(arrays, dtype) == (head, chunks)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_types_below_a_byte_are_flat_bytes(dtype):
    rng = np.random.default_rng(3)
    shapes = [(12, 8), (0, 4), (4,)]
    arrays = [rng.integers(0, 256, dtypes.nbytes(dtype, s)).astype(np.uint8) for s in shapes]
    there_and_back(arrays, dtype, shapes)
    assert [storage_size(dtype, s) for s in shapes] == [a.size for a in arrays]


@pytest.mark.parametrize("dtype", sorted(FORMATS))
def test_awkward_floats_among_weights(dtype):
    form = FORMATS[dtype]
    rng = np.random.default_rng(5)
    top = (1 << form.exponent) - 1 << form.mantissa
    sign = 1 << form.bits - 1
    awkward = [0, sign, 1, sign | 1, top, top | sign, top | 1, top | sign | (1 << form.mantissa) - 1, top - 1]
    word = np.dtype(f"u{form.bits // 8}")
    middle = (1 << form.exponent - 1) - 3 << form.mantissa
    x = (middle + rng.integers(0, 4 << form.mantissa, 20000, np.uint64, endpoint=False)).astype(word)
    x[rng.integers(0, x.size, 400)] = rng.choice(np.array(awkward, word), 400)
    a = x.view(dtypes.storage_dtype(dtype)).reshape(100, -1)
    head, _ = there_and_back([a], dtype)
    assert head[0] == (FLOATS if form.bits > 8 else head[0])


@pytest.mark.parametrize("dtype", ["F64", "F32", "C64", "F16", "BF16", "F8_E4M3", "I8", "I32", "BOOL"])
def test_long_tensors_come_in_independent_chunks(dtype):
    rng = np.random.default_rng(7)
    n = 3 * (1 << 17) + 77
    x = random_storage(rng, dtype, n)
    if dtype in FORMATS and dtypes.is_float(dtype):
        x = dtypes.from_float32(rng.normal(0, 1, n).astype(np.float32), dtype)
    head, chunks = there_and_back([x[:5], x, x[:1000]], dtype)
    assert [p.size for c in decode_planes_head(head, dtype, [(5,), (n,), (1000,)]).chunks() for p in c] == [
        5, 1 << 17, 1 << 17, 1 << 17, 77, 1000,
    ]  # fmt: skip
    assert len(chunks) == 6


def test_the_numpy_path_writes_and_reads_the_same_bytes():
    script = (
        "import hashlib, sys; import numpy as np; from netweight import kernels\n"
        "sys.path.insert(0, sys.argv[1]); import test_exact as t\n"
        "print(t.digest())\n"
    )
    env = dict(os.environ, NETWEIGHT_KERNELS="numpy")
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    other = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest()


def digest():
    """Hash of sections of every kind, read back."""
    rng = np.random.default_rng(11)
    total = hashlib.sha256(kernels.backend().encode()[:0])
    for dtype, arrays in (
        ("F32", [weights(rng, 200, 300), weights(rng, 50)]),
        ("BF16", [weights(rng, 16, 8, 3, 3, dtype="BF16")]),
        ("I64", [np.arange(5000), rng.integers(-9, 9, 3000)]),
        ("I32", [rng.integers(-9000, 9000, 40000).astype(np.int32)]),
    ):
        head, chunks = there_and_back(arrays, dtype)
        total.update(head + b"".join(chunks))
    return total.hexdigest()


# ---- prices


def test_counters_and_positions_cost_next_to_nothing():
    assert size_of(there_and_back([np.array(3907) for _ in range(20)], "I64")) <= 12
    assert size_of(there_and_back([np.array(3907 + 7 * i * i) for i in range(20)], "I64")) <= 80
    assert size_of(there_and_back([np.arange(512)[None]], "I64")) <= 12
    assert size_of(there_and_back([np.arange(512)[None], np.array(3), np.array(3)], "I64")) <= 60


def test_masks_and_constants_are_found():
    assert bits_each([np.tril(np.ones((512, 512), np.bool_))], "BOOL") < 0.06
    assert bits_each([np.where(np.tril(np.ones((512, 512))) > 0, 0, -1e4).astype(np.float32)], "F32") < 0.06
    assert size_of(there_and_back([np.ones((1024, 1024), np.float32)], "F32")) < 20


def test_pruned_weights_cost_their_entropy():
    rng = np.random.default_rng(13)
    w = rng.normal(0, 0.02, (300, 400)).astype(np.float32)
    dense = bits_each([w], "F32")
    w[rng.random(w.shape) < 0.9] = 0
    assert bits_each([w], "F32") < 0.1 * dense + 0.469 + 0.08  # H(0.1) = 0.469


def test_rows_of_zeros_and_rows_of_half_precision_are_told_apart():
    rng = np.random.default_rng(17)
    w = rng.normal(0, 0.02, (400, 384)).astype(np.float32)
    dense = bits_each([w], "F32")
    half = w.copy()
    half[50:150] = half[50:150].astype(np.float16)
    assert abs(bits_each([half], "F32") - (dense - 13 / 4)) < 0.1
    half[150:350] = 0
    assert bits_each([half], "F32") < (dense + dense - 13) / 4 + 0.1


def test_rows_of_different_scale_cost_no_more_than_rows_of_one():
    rng = np.random.default_rng(19)
    w = rng.normal(0, 1, (500, 500)).astype(np.float32)
    scaled = w * np.exp2(rng.integers(-20, 20, (500, 1))).astype(np.float32)
    assert bits_each([scaled], "F32") < bits_each([w], "F32") + 0.06


def test_few_distinct_values_cost_their_indices():
    rng = np.random.default_rng(23)
    values = rng.normal(0, 1, 16).astype(np.float32)
    assert bits_each([values[rng.integers(0, 16, (300, 300))]], "F32") < 4.05


def test_gaussian_weights_come_near_their_entropy():
    rng = np.random.default_rng(29)
    n = 1 << 19
    w = rng.normal(0, 1, n).astype(np.float32)
    words = dtypes.from_float32(w, "BF16")
    _, counts = np.unique(words, return_counts=True)
    empirical = float(np.sum(counts * np.log2(n / counts))) / n
    # The empirical entropy of some 3000 words is 0.72 * 3000 / n = 0.004 bit too low.
    assert empirical < bits_each([words], "BF16") < empirical + 0.03


# ---- no free lunch


@pytest.mark.parametrize("dtype", WHOLE)
def test_random_bits_are_stored_as_they_are(dtype):
    rng = np.random.default_rng(31)
    x = random_storage(rng, dtype, 100000)
    size = size_of(there_and_back([x], dtype))
    assert size >= (x.size / 8 if dtype == "BOOL" else x.nbytes)
    assert size <= 1 + x.nbytes


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("dtype", ["BOOL", "U8", "I64", "BF16", "F32"])
def test_nothing_beats_the_number_of_arrangements(dtype, share):
    # No code can tell a random arrangement of m ones among n zeros in less than log2 binomial(n, m) - 10 bits, but for
    # one in 1000.
    n, m = 60000, int(60000 * share)
    x = np.random.default_rng(37).permutation(np.arange(n) < m).astype(dtypes.storage_dtype(dtype))
    least = (lgamma(n + 1) - lgamma(m + 1) - lgamma(n - m + 1)) / log(2) - 10
    bits = 8 * size_of(there_and_back([x], dtype))
    assert least <= bits <= 1.02 * least + 1400


def test_the_coder_of_a_plane_is_as_short_as_constriction():
    rng = np.random.default_rng(41)
    classes = rng.integers(0, 3, 200000).astype(np.uint8)
    values = np.clip(rng.normal(100, 10 + 8 * classes), 0, 255).astype(np.uint8)
    counts = kernels.histogram(values, classes.astype(np.uint16), 3)
    description, field, bits = fields.fit_field(counts, 8)
    assert field.kind == fields.CLASSED
    data = fields.encode_field(field, values, classes)
    assert abs(8 * (len(data) + len(description)) - bits) < 1200  # 32 states of 32 bits
    coder = constriction.stream.stack.AnsCoder()
    for c in range(3):
        model = constriction.stream.model.Categorical(field.tables.freq[c] / 4096 + 1e-12, perfect=False)
        coder.encode_reverse(values[classes == c].astype(np.int32), model)
    assert len(data) <= 1.001 * coder.num_bits() / 8 + 128
    assert 8 * len(data) >= entropy(counts)
    back = fields.decode_field(field, Reader(data), values.size, classes)
    assert np.array_equal(back, values)


# ---- prediction


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("shape", [(), (7,), (300,), (70, 33), (64, 32, 3, 3), (700, 500), (3, 200000), (200000,)])
def test_prediction_of_weights(dtype, shape):
    rng = np.random.default_rng(43)
    w = weights(rng, *shape, dtype=dtype) if shape else dtypes.from_float32(np.float32([0.3]), dtype).reshape(())
    check_prediction(w, dtype)


@pytest.mark.parametrize("dtype", [code for code in WHOLE if not dtypes.is_float(code)])
def test_prediction_of_the_rest(dtype):
    check_prediction(random_storage(np.random.default_rng(47), dtype, 300000), dtype)
    check_prediction(np.zeros((500, 500), dtypes.storage_dtype(dtype)), dtype)
    check_prediction(np.zeros((0, 5), dtypes.storage_dtype(dtype)), dtype)


def check_prediction(array, dtype):
    actual = 8 * size_of(encode_planes([array], dtype))
    predicted = predicted_bits(array, dtype)
    assert abs(predicted - actual) <= 0.02 * actual + 512
    (point,) = Exact().sweep(array, dtype)
    assert (point.bits, point.loss, point.codec, point.knob) == (predicted, 0.0, "exact", 0)


def test_prediction_sees_rows_of_half_precision():
    rng = np.random.default_rng(53)
    w = rng.normal(0, 0.02, (4000, 384)).astype(np.float32)
    w[:300] = w[:300].astype(np.float16)
    check_prediction(w, "F32")


# ---- damage


def sections():
    rng = np.random.default_rng(59)
    few = rng.normal(0, 1, 9).astype(np.float32)[rng.integers(0, 9, 2000)]
    sparse = weights(rng, 60, 60)
    sparse[rng.random(sparse.shape) < 0.5] = 0
    sparse[:20] = sparse[:20].astype(np.float16)
    yield "floats", "F32", [weights(rng, 40, 50), weights(rng, 60)], FLOATS
    yield "specials and tails", "F32", [sparse], FLOATS
    yield "convolution", "BF16", [weights(rng, 32, 8, 3, 3, dtype="BF16")], FLOATS
    yield "palette", "F32", [few], WORDS
    yield "differences", "I64", [np.arange(900), rng.integers(0, 3, 500).cumsum()], WORDS
    yield "byte planes", "I32", [rng.integers(-2000, 2000, 3000).astype(np.int32)], WORDS
    yield "truth", "BOOL", [rng.random(5000) < 0.2], WORDS
    yield "zlib", "U8", [np.tile(rng.integers(0, 256, 300), 20).astype(np.uint8)], ZLIB
    yield "raw", "U16", [random_storage(rng, "U16", 50)], RAW


SECTIONS = list(sections())


def read(head, chunks, dtype, shapes):
    section = decode_planes_head(head, dtype, shapes)
    for pieces, chunk in zip(section.chunks(), chunks, strict=True):
        decode_planes_chunk(section, pieces, chunk)


@pytest.mark.parametrize(("dtype", "arrays", "way"), [s[1:] for s in SECTIONS], ids=[s[0] for s in SECTIONS])
def test_truncation_and_longer_data_are_damage(dtype, arrays, way):
    head, chunks = there_and_back(arrays, dtype)
    assert head[0] == way
    shapes = [a.shape for a in arrays]
    for end in range(len(head)):
        with pytest.raises(FormatError):
            decode_planes_head(head[:end], dtype, shapes)
    for end in {*range(min(len(chunks[0]), 40)), *range(0, len(chunks[0]), 41), len(chunks[0]) - 1}:
        with pytest.raises(FormatError):
            read(head, [chunks[0][:end], *chunks[1:]], dtype, shapes)
    with pytest.raises(FormatError):
        decode_planes_head(head + b"\0", dtype, shapes)
    with pytest.raises(FormatError):
        read(head, [chunks[0] + b"\0", *chunks[1:]], dtype, shapes)


@pytest.mark.parametrize(("dtype", "arrays", "way"), [s[1:] for s in SECTIONS], ids=[s[0] for s in SECTIONS])
def test_flipped_bits_give_a_format_error_or_values(dtype, arrays, way):
    head, chunks = encode_planes(arrays, dtype)
    shapes = [a.shape for a in arrays]
    rng = np.random.default_rng(61)
    caught = 0
    for bit in rng.permutation(8 * len(head))[:300].tolist():
        caught += fails(flipped(head, bit), chunks, dtype, shapes)
    for bit in rng.integers(0, 8 * len(chunks[0]), 60).tolist():
        fails(head, [flipped(chunks[0], bit), *chunks[1:]], dtype, shapes)
    for _ in range(100):
        noise = bytes([way]) + rng.bytes(int(rng.integers(0, 60)))
        fails(noise, chunks, dtype, shapes)
    assert caught > 0


def flipped(data, bit):
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def fails(head, chunks, dtype, shapes):
    try:
        read(head, chunks, dtype, shapes)
    except FormatError:
        return True
    return False


@pytest.mark.parametrize("shape", [(1 << 40, 1), (1, 1 << 40), (1 << 20, 1 << 20), (LARGEST_LEVELS, 2), (1 << 45,)])
def test_a_small_head_makes_no_large_arrays(shape):
    head, _ = encode_planes([weights(np.random.default_rng(67), 40, 50)], "F32")
    with pytest.raises(FormatError):
        decode_planes_head(head, "F32", [shape])


def test_a_pool_with_more_levels_than_a_reader_allows_is_still_stored(monkeypatch):
    rng = np.random.default_rng(71)
    w = rng.normal(0, 1, (40, 500)).astype(np.float16)
    w[:, ::2] *= np.float16(0.01)
    with_levels = size_of(there_and_back([w], "F16"))
    monkeypatch.setattr(planes_levels, "LARGEST_LEVELS", 539)
    assert size_of(there_and_back([w], "F16")) > with_levels
    monkeypatch.setattr(planes_levels, "LARGEST_LEVELS", 540)
    assert size_of(there_and_back([w], "F16")) == with_levels


# ---- a real network


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is missing")
def test_a_real_network_takes_less_than_a_byte_coder_needs():
    from safetensors.numpy import load_file

    tensors = load_file(REAL)
    names = {np.dtype("f4"): "F32", np.dtype("i8"): "I64"}
    groups = {}
    for name, x in tensors.items():
        groups.setdefault(name if x.size >= 4096 else x.dtype, []).append(x)
    total = sum(size_of(there_and_back(group, names[group[0].dtype])) for group in groups.values())
    # ZipNN, which codes the bytes of exponents without context, needs 903,784 bytes for the file.
    assert total < 901_500


def test_exact_is_thin():
    rng = np.random.default_rng(73)
    w = weights(rng, 60, 70)
    exact = Exact()
    head, (chunk,) = exact.encode([w], "F32")
    assert (head, [chunk]) == encode_planes([w], "F32")
    section = exact.open(head, "F32", [w.shape])
    (pieces,) = section.chunks()
    (back,) = exact.decode(section, pieces, chunk)
    assert back.tobytes() == w.tobytes()
