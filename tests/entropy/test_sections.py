"""Sections of integers: any come back, by any layout, levels and trellis, and they cost what their model says."""

from dataclasses import replace

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netweight import kernels
from netweight.codecs.lattice import run_of
from netweight.entropy.decode import Head, decode_chunk, decode_head
from netweight.entropy.layout import CLASSES, Layout, Levels, segment
from netweight.entropy.small import encode_small, signed
from netweight.entropy.stream import IntStream, encode_section, plan_chunks
from netweight.entropy.trellis import TAPS
from netweight.errors import FormatError

pytestmark = pytest.mark.core

SHAPES = [
    (), (1,), (33,), (5000,), (1, 1), (1, 700), (700, 1), (31, 33), (64, 96), (3, 5, 7), (40, 40, 5),
    (64, 1, 3, 3), (16, 3, 3, 3), (8, 40, 3, 3), (5, 4, 7, 7), (6, 36, 1, 1), (7, 3, 2, 2, 2), (3, 2, 9, 9),
    (2, 2, 2, 2, 2, 2),
]  # fmt: skip


def stream(seed: int, shape: tuple[int, ...], *, shift: int = 0, run: int = 17, wild: bool = True) -> IntStream:
    """Random integers of a shape: Laplacian of any spread, a few far away; random levels."""
    random = np.random.default_rng(seed)
    layout = Layout.of(shape)
    k = np.rint(random.laplace(0, 10 ** random.uniform(-1.5, 1.8), layout.size))
    if wild and layout.size:
        rare = random.random(layout.size) < random.choice([0, 0.002, 0.05, 0.5])
        k[rare] = np.rint(random.normal(0, 10 ** random.uniform(1, 6), rare.sum()))
    k = k.clip(-(1 << 22), 1 << 22).astype(np.int64)
    k = k << shift | random.integers(0, 1 << shift, layout.size)
    k = k.astype(np.int16 if not shift and k.size and np.abs(k).max() < 1 << 15 else np.int32)
    row = random.integers(-30, 31, layout.rows).astype(np.int16) if random.random() < 0.5 else None
    column = random.integers(-30, 31, layout.columns).astype(np.int16) if random.random() < 0.5 else None
    return IntStream(k, layout, Levels(int(random.integers(-40, 60)), row, column), shift, run)


def fine_indices(s: IntStream, bits: int) -> np.ndarray:
    """What the decoder must give, from the definition: integers, or 2 k - c sign(k) along the trellis of each lane."""
    if not bits:
        return s.k.astype(np.int64)
    tap0, tap1 = TAPS[bits]
    out = np.zeros(s.k.size, np.int64)
    for start in range(0, s.k.size, 1 << s.run):
        states = [0] * 32
        for i, k in enumerate(s.k[start : start + (1 << s.run)].tolist()):
            state = states[i % 32]
            out[start + i] = 2 * k - (state & 1) * ((k > 0) - (k < 0))
            states[i % 32] = (state >> 1) ^ (tap0 if state & 1 else 0) ^ (tap1 if k & 1 else 0)
    return out


def decoded(streams: list[IntStream], data: tuple[bytes, list[bytes]]) -> list[np.ndarray]:
    head = decode_head(data[0], [s.layout for s in streams])
    out = [np.zeros(s.k.size, np.int64) for s in streams]
    for pieces, chunk in zip(head.chunks(), data[1], strict=True):
        for p, found in zip(pieces, decode_chunk(head, pieces, chunk), strict=True):
            out[p.tensor][p.start : p.start + p.size] = found.full()
    return out


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.sampled_from(SHAPES)), min_size=1, max_size=4),
    st.sampled_from([0, 0, *TAPS]),
    st.integers(0, 21),
)
@settings(max_examples=100)
def test_any_integers_come_back(tensors, bits, shift):
    streams = [
        stream(seed, shape, shift=0 if bits or seed % 3 else shift, run=17 + seed % 4) for seed, shape in tensors
    ]
    data = encode_section(streams, bits)
    for s, found in zip(streams, decoded(streams, data), strict=True):
        assert np.array_equal(found, fine_indices(s, bits))


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("shape", [(300, 700), (100, 150, 3, 3)])
def test_long_tensors_are_cut_into_runs(bits, shape):
    """Contexts of neighbours reach over the cut, the trellis starts anew, other tensors share the section."""
    streams = [stream(1, (40, 40)), stream(7, shape), stream(3, (64, 96), run=18), stream(4, shape, run=18)]
    data = encode_section(streams, bits)
    sizes = [[p.size for p in chunk] for chunk in decode_head(data[0], [s.layout for s in streams]).chunks()]
    rest = streams[1].k.size - (1 << 17)
    assert sizes == [[1600], [1 << 17], [rest], [6144, streams[3].k.size]]
    for s, found in zip(streams, decoded(streams, data), strict=True):
        assert np.array_equal(found, fine_indices(s, bits))


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("shape", [(1, 1), (9,), (0, 4), (40, 40, 3, 3)])
@pytest.mark.parametrize("value", [0, 1, -127, 126, -128, 127, 1 << 22, -(1 << 22)])
def test_constant_tensors_come_back(bits, shape, value):
    layout = Layout.of(shape)
    s = IntStream(np.full(layout.size, value, np.int32), layout, Levels(8))
    assert np.array_equal(decoded([s], encode_section([s], bits))[0], fine_indices(s, bits))


@pytest.mark.parametrize("bits", [0, 8])
def test_coding_is_deterministic(bits):
    streams = [stream(5, (8, 40, 3, 3)), stream(6, (64, 96))]
    assert encode_section(streams, bits) == encode_section(streams, bits)


@given(st.lists(st.integers(0, 3000), max_size=30), st.integers(5, 12))
def test_chunks_hold_every_weight_once(sizes, run):
    chunks = plan_chunks(sizes, run)
    pieces = [p for chunk in chunks for p in chunk]
    assert all(0 < sum(p.size for p in chunk) <= 1 << run for chunk in chunks)
    for tensor, size in enumerate(sizes):
        own = [p for p in pieces if p.tensor == tensor]
        assert [p.start for p in own] == list(np.cumsum([0, *[p.size for p in own]])[:-1])
        assert sum(p.size for p in own) == size
    assert [p.tensor for p in pieces] == sorted(p.tensor for p in pieces)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 3, 8]), st.data())
@settings(max_examples=60)
def test_damage_is_refused_or_gives_the_right_number_of_integers(seed, bits, data):
    streams = [stream(seed, (16, 3, 3, 3)), stream(seed + 1, (31, 33))]
    head, chunks = encode_section(streams, bits)
    broken = bytearray(head + chunks[0])
    at = data.draw(st.integers(0, len(broken) - 1))
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        read = decode_head(bytes(broken[: len(head)]), [s.layout for s in streams])
        found = decode_chunk(read, read.chunks()[0], bytes(broken[len(head) :]))
    except FormatError:
        return
    assert all(f.full().size == p.size for f, p in zip(found, read.chunks()[0], strict=True))


# ---- layout


@pytest.mark.parametrize("shape", SHAPES)
def test_a_scan_visits_every_weight_once_in_the_order_documented(shape):
    layout = Layout.of(shape)
    tensor = np.arange(layout.size).reshape(shape)
    flat = layout.scan(tensor)
    assert np.array_equal(layout.unscan(flat, shape), tensor)
    assert layout.rows * layout.columns * layout.positions == layout.size
    for i in range(0, layout.size, max(1, layout.size // 50)):
        if layout.order == "oki":
            o, rest = divmod(i, layout.positions * layout.columns)
            p, c = divmod(rest, layout.columns)
        elif layout.order == "koi":
            p, rest = divmod(i, layout.rows * layout.columns)
            o, c = divmod(rest, layout.columns)
        else:
            o, c = divmod(i, layout.columns)
            p = 0
        assert flat[i] == (o * layout.columns + c) * layout.positions + p


@pytest.mark.parametrize("shape", SHAPES)
def test_classes_are_base_and_levels_of_row_and_column(shape):
    s = stream(1, shape)
    layout, random = s.layout, np.random.default_rng(2)
    row = random.integers(-30, 31, layout.rows).astype(np.int16)
    column = random.integers(-30, 31, layout.columns).astype(np.int16)
    cube = np.broadcast_to((8 + row[:, None] + column)[:, :, None], (layout.rows, layout.columns, layout.positions))
    expected = layout.scan(np.ascontiguousarray(cube).clip(0, CLASSES - 1).astype(np.uint8).reshape(shape))
    start = layout.size // 3
    size = layout.size - start
    assert np.array_equal(Levels(8, row, column).classes(layout, start, size), expected[start:])


# ---- what it costs


def rows_of_scales(scale: float, shape: tuple[int, ...], seed: int = 0) -> IntStream:
    """Laplacian integers whose rows and columns have scales of their own, and their levels."""
    random = np.random.default_rng(seed)
    layout = Layout.of(shape)
    row = random.integers(-6, 7, layout.rows).astype(np.int16)
    column = random.integers(-3, 4, layout.columns).astype(np.int16)
    spread = scale * 2.0 ** ((row[:, None] + column) / 4)
    cube = random.laplace(0, np.broadcast_to(spread[:, :, None], (layout.rows, layout.columns, layout.positions)))
    k = layout.scan(np.rint(cube).astype(np.int16).reshape(shape))
    return IntStream(k, layout, Levels(8 + round(4 * np.log2(scale * 1.41)), row, column))


def class_entropies_bits(s: IntStream) -> float:
    """Empirical entropy of the integers given their class."""
    classes = s.levels.classes(s.layout, 0, s.layout.size)
    out = 0.0
    for c in np.unique(classes):
        _, n = np.unique(s.k[classes == c], return_counts=True)
        out += float(np.sum(n * np.log2(n.sum() / n)))
    return out


def own_model_bits(s: IntStream, head: Head) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """What the tables of a section promise for its symbols, escaped values as they are written; symbols and tables."""
    total, coded = 0.0, []
    for (p,) in head.chunks():
        k = s.k[p.start : p.start + p.size].copy()
        symbol, index, _ = kernels.contexts(k, head.model, segment(s.layout, s.levels, p.start, p.size))
        out = head.tables.freq[index, symbol] == 0
        total += sum(8 * len(signed(v)) for v in k[out].tolist())
        symbol[out] = np.where(k[out] & 1, 255, 0)
        total += float(np.sum(12 - np.log2(head.tables.freq[index, symbol].astype(float))))
        coded.append((symbol, index))
    return total, coded


@pytest.mark.parametrize("scale", [0.25, 0.7, 2.0, 6.0])
def test_a_million_symbols_cost_half_a_percent_more_than_their_model(scale):
    """Tables, lane states and the table of chunks included; the levels too from two bits a weight on.

    Levels of 2,124 rows and columns are 900 bytes, which is 0.7 % of a file of one bit a weight: what they must do
    there is pay for themselves.
    """
    s = rows_of_scales(scale, (1024, 1100))
    s = replace(s, run=run_of(s.levels))
    head, chunks = encode_section([s], 0)
    bits = 8 * (len(head) + sum(map(len, chunks)) + 7 * len(chunks))
    model_bits, _ = own_model_bits(s, decode_head(head, [s.layout]))
    entropy_bits = class_entropies_bits(s)
    levels = np.concatenate([s.levels.row, s.levels.column]).astype(np.int64)
    levels_bits = 8 * len(encode_small(levels))
    assert entropy_bits <= 1.0001 * model_bits
    assert model_bits <= 1.0025 * entropy_bits
    assert model_bits <= bits - levels_bits <= 1.005 * model_bits
    assert scale < 1 or bits <= 1.005 * model_bits
    plain_head, plain_chunks = encode_section([replace(s, levels=Levels(s.levels.base))], 0)
    assert bits < 0.98 * 8 * (len(plain_head) + sum(map(len, plain_chunks)) + 7 * len(plain_chunks))


@pytest.mark.parametrize("bits", [0, 8])
@pytest.mark.parametrize("shape", [(512, 300), (96, 128, 3, 3)])
def test_a_chunk_is_as_long_as_constriction_makes_it(bits, shape):
    """An independent coder, given the same tables and the same choice of table for each symbol."""
    s = rows_of_scales(1.5, shape)
    s = replace(s, k=s.k.clip(-40, 40))
    head_bytes, chunks = encode_section([s], bits)
    head = decode_head(head_bytes, [s.layout])
    model_bits, coded = own_model_bits(s, head)
    theirs_bits = 0
    for symbol, index in coded:
        coder = constriction.stream.stack.AnsCoder()
        for t in np.unique(index):
            freq = head.tables.freq[t]
            known = np.flatnonzero(freq)
            if known.size > 1:  # a certain symbol costs nothing, and constriction wants two at least
                model = constriction.stream.model.Categorical(freq[known] / 4096.0, perfect=False)
                coder.encode_reverse(np.searchsorted(known, symbol[index == t]).astype(np.int32), model)
        theirs_bits += coder.num_bits()
    escaped_bits = model_bits - sum(
        float(np.sum(12 - np.log2(head.tables.freq[index, symbol].astype(float)))) for symbol, index in coded
    )
    ours_bits = 8 * sum(map(len, chunks)) - escaped_bits
    assert abs(theirs_bits - (model_bits - escaped_bits)) <= 1e-4 * model_bits + 64 * len(chunks)
    assert theirs_bits - 64 * len(chunks) <= ours_bits <= 1.0005 * theirs_bits + 32 * 32 * len(chunks)
