"""State dicts, modules and arrays in memory, and which names are tied."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from netweight.checkpoint import TensorInfo, open_checkpoint, torch_tensors
from netweight.dtypes import nbytes, storage_dtype
from netweight.errors import FormatError, UsageError

torch = pytest.importorskip("torch")

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_every_dtype_of_torch_keeps_its_bits(code, shape):
    itemsize = torch.empty((), dtype=DTYPES[code]).element_size()
    count = int(np.prod(shape))
    raw = np.random.default_rng(0).integers(0, 2 if code == "BOOL" else 256, count * itemsize, np.uint8)
    tensor = (
        torch.frombuffer(raw, dtype=DTYPES[code]).reshape(shape) if count else torch.empty(shape, dtype=DTYPES[code])
    )
    checkpoint = open_checkpoint({"w": tensor})
    assert checkpoint.infos["w"] == TensorInfo("w", code, shape)
    stored = checkpoint.read("w")
    assert stored.tobytes() == raw.tobytes()
    assert (stored.shape, stored.dtype.itemsize) == (shape, itemsize)


def test_empty_tensors_of_numpy_have_strange_strides():
    for array in (np.zeros(0, np.float32), np.zeros((3, 0)), np.zeros((0, 4), np.float16)):
        assert open_checkpoint({"w": torch.from_numpy(array)}).read("w").shape == array.shape


@pytest.mark.parametrize("code", [*DTYPES, "F4"])
@pytest.mark.parametrize("shape", [(0, 2), (3, 2), (2, 1, 4)])
def test_storage_becomes_the_tensor_it_was(code, shape):
    raw = np.random.default_rng(1).integers(0, 2 if code == "BOOL" else 256, nbytes(code, shape), np.uint8)
    array = raw.view(storage_dtype(code))
    tensor = torch_tensors.tensor_of(array, code, shape)
    assert tensor.dtype == torch_tensors.dtype_of(code) == DTYPES.get(code, torch.float4_e2m1fn_x2)
    again = open_checkpoint({"w": tensor})
    assert again.infos["w"] == TensorInfo("w", code, shape)
    assert again.read("w").tobytes() == raw.tobytes()


def test_a_tensor_may_be_written_to_even_if_its_storage_may_not():
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    torch_tensors.tensor_of(array, "F32", (3,)).add_(1)
    assert array.tolist() == [1, 1, 1]


def test_a_scalar_becomes_a_scalar():
    assert torch_tensors.tensor_of(np.array(0x3FC0, np.uint16), "BF16", ()).item() == 1.5


def test_torch_has_no_type_of_six_bits():
    with pytest.raises(UsageError, match=r"has no dtype F6_E2M3\.\nAsk for framework=.numpy"):
        torch_tensors.dtype_of("F6_E2M3")


def test_two_values_in_a_byte_count_as_two():
    tensor = torch.arange(6, dtype=torch.uint8).reshape(2, 3).view(torch.float4_e2m1fn_x2)
    checkpoint = open_checkpoint({"w": tensor})
    assert checkpoint.infos["w"] == TensorInfo("w", "F4", (2, 6))
    assert checkpoint.infos["w"].storage_shape == (6,)
    np.testing.assert_array_equal(checkpoint.read("w"), np.arange(6))


@settings(deadline=None)
@given(
    hnp.arrays(
        st.sampled_from(["?", "<u1", "<i2", ">i2", "<u4", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", "<u8", "<i8"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.integers(0, 2),
)
def test_arrays_of_any_byte_order_and_stride_keep_their_values(array, view):
    array = (array, array.T, array[..., ::-1] if array.ndim else array)[view]
    stored = open_checkpoint({"w": array}).read("w")
    assert stored.flags.c_contiguous
    assert not stored.flags.writeable
    assert stored.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(stored, array)


def test_numpy_and_torch_may_stand_together_and_nothing_is_copied():
    array, tensor = np.ones((2, 3), np.float32), torch.ones(2, 3)
    checkpoint = open_checkpoint({"n": array, "t": tensor, "s": np.float16(2.5)})
    assert np.shares_memory(checkpoint.read("n"), array)
    assert np.shares_memory(checkpoint.read("t"), tensor.numpy())
    assert checkpoint.read("s") == 2.5
    array[0, 0] = 9  # the caller's array stays the caller's
    assert array.flags.writeable


def test_only_the_same_view_of_the_same_memory_is_a_tie():
    weight = torch.arange(12.0).reshape(3, 4)
    square = torch.eye(4)
    state = {
        "a": weight,
        "same": weight,
        "alias": weight.view(3, 4),
        "detached": weight.detach(),
        "parameter": torch.nn.Parameter(weight),
        "flat": weight.view(12),
        "start": weight[:2],
        "turned": weight.t(),
        "bits": weight.view(torch.int32),
        "equal": weight.clone(),
        "square": square,
        "square turned": square.t(),
        "empty": torch.zeros(0),
        "empty too": torch.zeros(0),
    }
    checkpoint = open_checkpoint(state)
    assert checkpoint.ties == dict.fromkeys(["same", "alias", "detached", "parameter"], "a")
    assert checkpoint.names == tuple(state)
    assert list(checkpoint.infos) == [name for name in state if name not in checkpoint.ties]
    assert checkpoint.read("alias") is not None
    for name, tensor in state.items():
        np.testing.assert_array_equal(checkpoint.read(name), tensor.detach().numpy())


def test_a_conjugate_view_is_no_tie_and_reads_as_it_looks():
    tensor = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    real = torch.tensor([5.0, -6.0])
    checkpoint = open_checkpoint(
        {"z": tensor, "c": tensor.conj(), "i": tensor.conj().imag, "r": real, "n": torch._neg_view(real)}
    )
    assert checkpoint.ties == {}
    np.testing.assert_array_equal(checkpoint.read("c"), [1 - 2j, 3 + 4j])
    np.testing.assert_array_equal(checkpoint.read("i"), [-2, 4])
    np.testing.assert_array_equal(checkpoint.read("n"), [-5, 6])


def test_arrays_are_tied_like_tensors():
    array = np.arange(16.0).reshape(4, 4)
    views = {
        "a": array,
        "b": array,
        "c": array[:],
        "t": array.T,
        "r": array[::-1],
        "e": array + 0,
        "i": array.view("i8"),
    }
    assert open_checkpoint(views).ties == {"b": "a", "c": "a"}


def test_arrays_made_on_the_fly_are_not_taken_for_ties():
    """A mapping that makes its arrays when asked may reuse memory that it just let go."""
    from collections.abc import Mapping

    class Lazy(Mapping):
        def __getitem__(self, name):
            return np.full(1000, float(name))

        def __iter__(self):
            return map(str, range(50))

        def __len__(self):
            return 50

    checkpoint = open_checkpoint(Lazy())
    assert checkpoint.ties == {}
    assert [checkpoint.read(name)[0] for name in checkpoint.names] == list(range(50))


def test_a_module_with_tied_weights():
    class Language(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(7, 3)
            self.head = torch.nn.Linear(3, 7, bias=False)
            self.head.weight = self.embed.weight
            self.norm = torch.nn.BatchNorm1d(3)

    module = Language()
    checkpoint = open_checkpoint(module)
    assert checkpoint.source == "the module Language"
    assert checkpoint.ties == {"head.weight": "embed.weight"}
    assert set(checkpoint.names) == set(module.state_dict())
    assert checkpoint.infos["norm.num_batches_tracked"] == TensorInfo("norm.num_batches_tracked", "I64", ())
    np.testing.assert_array_equal(checkpoint.read("head.weight"), module.embed.weight.detach().numpy())


def unusual():
    with torch._subclasses.fake_tensor.FakeTensorMode():
        fake = torch.ones(3)
    return {
        "of layout torch.sparse_coo": torch.eye(3).to_sparse(),
        "on the meta device": torch.zeros(3, device="meta"),
        "of type FakeTensor": fake,
        "not initialised": torch.nn.LazyLinear(3).weight,
    }


def test_tensors_without_plain_data_are_refused():
    for words, tensor in unusual().items():
        with pytest.raises(FormatError) as caught:
            open_checkpoint({"w": tensor})
        assert str(caught.value) == (
            f"Tensor 'w' of the dictionary of tensors is {words} and has no plain data to store.\n"
            "Convert it to a dense tensor first."
        )


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ([1.0], "'w' of the dictionary of tensors is of type list, no tensor."),
        (None, "'w' of the dictionary of tensors is of type NoneType, no tensor."),
        (np.array(["a"]), "Tensor 'w' of the dictionary of tensors has the NumPy dtype <U1, which safetensors cannot"),
        (
            np.array([None]),
            "Tensor 'w' of the dictionary of tensors has the NumPy dtype object, which safetensors cannot",
        ),
        (np.zeros(2, np.complex128), "Tensor 'w' of the dictionary of tensors has the NumPy dtype complex128, which"),
        (np.zeros((1,) * 17), "Tensor 'w' of the dictionary of tensors has 17 axes; at most 16 are supported."),
    ],
)
def test_values_that_cannot_be_stored_are_refused(value, fact):
    with pytest.raises(FormatError) as caught:
        open_checkpoint({"w": value})
    assert caught.value.fact.startswith(fact)
    assert caught.value.remedy


def test_names_are_strings():
    with pytest.raises(UsageError) as caught:
        open_checkpoint({1: np.zeros(3)})
    assert str(caught.value) == "The key 1 of the dictionary of tensors is no string.\nName every tensor."


def test_ml_dtypes_are_known_by_name():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    checkpoint = open_checkpoint({"b": np.ones(3, ml_dtypes.bfloat16), "f": np.ones(3, ml_dtypes.float8_e4m3fn)})
    assert [info.dtype for info in checkpoint.infos.values()] == ["BF16", "F8_E4M3"]
    assert checkpoint.read("b").tolist() == [0x3F80] * 3


def test_closing_lets_go():
    checkpoint = open_checkpoint({"w": np.ones(3)})
    checkpoint.close()
    with pytest.raises(UsageError, match="is closed"):
        checkpoint.read("w")
