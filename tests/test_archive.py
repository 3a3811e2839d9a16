"""The archive: a lazy mapping that decodes what is asked for and nothing else, and writes whole files or none."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import netweight as nw
from netweight import kernels, kernels_decode
from netweight.archive import Archive
from netweight.checkpoint import open_checkpoint
from netweight.codecs.base import Point, index_of
from netweight.dtypes import from_float32
from netweight.errors import FormatError, OutputError, UsageError
from netweight.importance.stat import Stat

pytestmark = pytest.mark.core


def planned(tensors: dict, choices: dict[str, tuple[str, int]]) -> Archive:
    return nw.encode(tensors, nw.Plan({name: Point(0, 0, *choice) for name, choice in choices.items()}, 0.0))


def reopened(archive: Archive, folder: Path) -> Archive:
    archive.save(folder / "file.nwt", force=True)
    return Archive.open(folder / "file.nwt")


@pytest.fixture(scope="module")
def compressed(make_network):
    """Each network at 5 bits a weight, made once."""
    made = {}

    def compressed(name: str) -> Archive:
        if name not in made:
            made[name] = nw.compress(make_network(name), bits=5)
        return made[name]

    return compressed


# ---- a mapping


@pytest.mark.parametrize("name", ["dense", "convolutional", "mixed", "alone"])
def test_it_is_a_mapping_in_the_order_of_the_source(name, compressed, make_network, tmp_path):
    network = make_network(name)
    for archive in (compressed(name), reopened(compressed(name), tmp_path)):
        assert isinstance(archive, Mapping)
        assert list(archive) == list(network) == list(archive.infos)
        assert len(archive) == len(network)
        assert list(archive) == list(archive.keys())
        for key, value in archive.items():
            assert key in archive
            assert value.shape == network[key].shape
            assert value.dtype == network[key].dtype
            assert archive.infos[key].shape == network[key].shape


def test_what_is_not_there(compressed):
    archive = compressed("dense")
    assert "no such tensor" not in archive
    assert archive.get("no such tensor") is None
    with pytest.raises(KeyError):
        archive["no such tensor"]
    with pytest.raises(KeyError):
        archive.tensor("no such tensor")


@pytest.mark.parametrize("name", ["dense", "convolutional", "mixed", "alone"])
def test_the_file_is_the_archive(name, compressed, tmp_path):
    archive = compressed(name)
    back = reopened(archive, tmp_path)
    assert back.nbytes == archive.nbytes == (tmp_path / "file.nwt").stat().st_size
    assert back.header == archive.header
    assert (back.metadata, back.ties, back.plan, back.layout) == (archive.metadata, archive.ties, archive.plan, ())
    for key in archive:
        assert back[key].tobytes() == archive[key].tobytes()
    back.check()


@pytest.mark.parametrize("name", ["dense", "convolutional", "mixed", "alone"])
def test_every_byte_is_accounted_for(name, compressed):
    archive = compressed(name)
    rows = archive.rows()
    assert [row.name for row in rows] == [info.name for info in archive.header.tensors]
    assert archive.header_bytes + sum(row.nbytes for row in rows) == pytest.approx(archive.nbytes)
    for row in rows:
        size = archive.infos[row.name].size
        assert row.bits_per_weight == pytest.approx(8 * row.nbytes / size if size else 0)


def two_in_a_section() -> tuple[dict[str, np.ndarray], dict[str, Stat], dict[str, nw.Curve]]:
    """Two matrices, one four times as large as the other, and their curves."""
    random = np.random.default_rng(0)
    tensors = {name: (random.normal(size=(128, 256)) * s).astype(np.float32) for name, s in (("a", 4.0), ("b", 1.0))}
    stats = {name: Stat() for name in tensors}
    return tensors, stats, nw.sweep(tensors, stats, codecs=["uniform"])


def test_a_shared_section_is_shared_out_by_what_integers_cost():
    """One matrix at 4 bits a weight, the other at 2: alone they take what their shares say."""
    tensors, stats, curves = two_in_a_section()
    plan = nw.allocate(curves, bits=3)
    archive = nw.encode(tensors, plan, stats)
    rows = {row.name: row for row in archive.rows()}
    assert all(row.shared and not row.unread and row.section == 0 for row in rows.values())
    assert rows["a"].bits_per_weight - rows["b"].bits_per_weight == pytest.approx(2, abs=0.05)
    for name, row in rows.items():
        single = replace(plan, choices={name: plan.choices[name]}, sizes={name: plan.sizes[name]})
        (alone,) = nw.encode({name: tensors[name]}, single, stats).rows()
        assert not alone.shared
        assert row.nbytes == pytest.approx(alone.nbytes, abs=150), "tables and 128 bytes of lane states of its own"


def test_a_damaged_section_is_shared_out_by_weights(tmp_path):
    tensors, stats, curves = two_in_a_section()
    archive = nw.encode(tensors, nw.allocate(curves, bits=3), stats)
    archive.save(tmp_path / "a.nwt")
    content = bytearray((tmp_path / "a.nwt").read_bytes())
    content[-1] ^= 1
    (tmp_path / "b.nwt").write_bytes(content)
    first, second = Archive.open(tmp_path / "b.nwt").rows()
    assert first.unread
    assert second.unread
    assert first.nbytes == second.nbytes == (archive.nbytes - archive.header_bytes) / 2


def test_an_empty_network_is_a_file_too(tmp_path):
    archive = reopened(nw.compress({}, slope=1.0), tmp_path)
    assert len(archive) == 0
    assert dict(archive) == {}
    archive.check()


def test_arrays_are_the_callers(compressed):
    archive = compressed("convolutional")
    first = archive["norm0.weight"]
    before = first.copy()
    first[...] = 7
    assert np.array_equal(archive["norm0.weight"], before)


# ---- nothing but what is asked for


def sections_at(archive: Archive) -> list[tuple[int, int]]:
    """Where each section begins and ends in the file."""
    ends = archive.header_bytes + np.cumsum([0, *(s.size for s in archive.header.sections)])
    return [(int(a), int(b)) for a, b in pairwise(ends)]


def test_a_tensor_decodes_although_all_other_sections_are_ruined(tmp_path):
    random = np.random.default_rng(0)
    tensors = {f"t{j}": random.normal(size=(200, 180)).astype(np.float32) for j in range(5)}
    codecs = {"t0": "exact", "t1": "exact", "t2": "trellis", "t3": "exact", "t4": "uniform"}
    archive = planned(
        tensors, {name: (codec, index_of(0.1) if codec != "exact" else 0) for name, codec in codecs.items()}
    )
    archive.save(tmp_path / "whole.nwt")
    data = (tmp_path / "whole.nwt").read_bytes()
    places = sections_at(archive)
    assert len(places) == 5
    for number, (begin, end) in enumerate(places):
        ruined = bytearray(np.random.default_rng(1).integers(0, 256, len(data)).astype(np.uint8).tobytes())
        ruined[: archive.header_bytes] = data[: archive.header_bytes]
        ruined[begin:end] = data[begin:end]
        (tmp_path / "ruined.nwt").write_bytes(ruined)
        opened = Archive.open(tmp_path / "ruined.nwt")
        own = {archive.header.tensors[m].name for m in archive.header.sections[number].members}
        for name in tensors:
            if name in own:
                assert np.array_equal(opened[name], archive[name])
            else:
                with pytest.raises(FormatError):
                    opened[name]
        with pytest.raises(FormatError):
            opened.check()


def test_a_tensor_decodes_although_the_next_chunk_of_its_section_is_ruined(tmp_path):
    """Tensors that share tables share chunks only until a chunk is full."""
    random = np.random.default_rng(0)
    tensors = {f"t{j}": random.normal(size=(300, 500)).astype(np.float32) for j in range(8)}
    archive = planned(tensors, dict.fromkeys(tensors, ("uniform", index_of(0.5))))
    assert len(archive.header.sections) == 1
    archive.save(tmp_path / "whole.nwt")
    data = bytearray((tmp_path / "whole.nwt").read_bytes())
    data[-100] ^= 1
    (tmp_path / "ruined.nwt").write_bytes(data)
    opened = Archive.open(tmp_path / "ruined.nwt")
    assert np.array_equal(opened["t0"], archive["t0"])
    with pytest.raises(FormatError):
        opened["t7"]


def test_pooled_tensors_decode_in_any_order(compressed, tmp_path):
    archive = reopened(compressed("convolutional"), tmp_path)
    whole = {name: archive[name].copy() for name in archive}
    for seed in range(4):
        names = np.random.default_rng(seed).permutation(list(whole))
        with Archive.open(tmp_path / "file.nwt") as opened:
            for name in names:
                assert opened[name].tobytes() == whole[name].tobytes()


def test_threads_may_share_an_archive(compressed, tmp_path):
    archive = reopened(compressed("convolutional"), tmp_path)
    whole = {name: archive[name].tobytes() for name in archive}
    with Archive.open(tmp_path / "file.nwt") as opened, ThreadPoolExecutor(8) as pool:
        for name, data in zip(list(whole) * 10, pool.map(lambda n: opened[n].tobytes(), list(whole) * 10), strict=True):
            assert data == whole[name]


def test_after_close_arrays_stay_and_tensors_are_read_again(compressed, tmp_path):
    archive = reopened(compressed("dense"), tmp_path)
    kept = archive["layer0.weight"]
    copy = kept.copy()
    archive.close()
    assert np.array_equal(kept, copy)
    assert np.array_equal(archive["layer0.weight"], copy)


def test_checking_reports_its_progress(compressed):
    archive = compressed("mixed")
    seen = []
    archive.check(lambda *report: seen.append(report))
    total = len(archive.header.tensors)
    assert seen == [("verify", j + 1, total) for j in range(total)]


# ---- what is kept of the source


def test_metadata_and_the_hash_of_the_source(tmp_path, make_network):
    from safetensors.numpy import save_file

    network = make_network("dense")
    save_file(network, tmp_path / "m.safetensors", metadata={"format": "pt", "ünïcode": "\n\t\"'\\ \u2028"})
    archive = reopened(nw.compress(tmp_path / "m.safetensors", bits=4), tmp_path)
    assert archive.metadata == {"format": "pt", "ünïcode": "\n\t\"'\\ \u2028"}
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    assert archive.header.source == {"sha256": checkpoint.sha256(), "bytes": checkpoint.nbytes}
    assert len(archive.layout) == 1
    assert (archive.layout[0].file, archive.layout[0].tensors) == ("m.safetensors", len(network))


@pytest.mark.parametrize("name", ["", "a\nb", "ü" * 300, "..", "\x00", '"', "a/b\\c", "\ud800"])
def test_any_name_comes_back(name, tmp_path):
    w = np.arange(6, dtype=np.float32)
    archive = reopened(nw.compress({name: w}, slope=0.0), tmp_path)
    assert list(archive) == [name]
    assert np.array_equal(archive[name], w)


@pytest.mark.parametrize(("dtype", "code"), [(np.float16, "F16"), (np.float32, "F32"), (np.float64, "F64")])
@pytest.mark.parametrize("codec", ["trellis", "uniform"])
def test_values_are_rounded_once_to_the_dtype_of_the_source(dtype, code, codec, tmp_path):
    w = np.random.default_rng(0).normal(size=(64, 64))
    plain = planned({"w": w.astype(np.float32)}, {"w": (codec, index_of(0.05))})["w"]
    archive = reopened(planned({"w": w.astype(dtype)}, {"w": (codec, index_of(0.05))}), tmp_path)
    assert archive.infos["w"].dtype == code
    assert archive["w"].dtype == dtype
    if dtype is not np.float16:
        assert np.array_equal(archive["w"], plain.astype(dtype))
    assert np.max(np.abs(archive["w"].astype(np.float64) - w)) < 0.12


# ---- torch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def test_bfloat16_and_ties(torch, tmp_path):
    w = torch.randn(96, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    archive = reopened(nw.compress({"a": w, "b": torch.ones(5), "c": w}, bits=6), tmp_path)
    assert archive.ties == {"c": "a"}
    assert list(archive) == ["a", "b", "c"]
    assert archive["a"].dtype == np.uint16
    assert np.array_equal(archive["a"], archive["c"])
    assert archive.tensor("c").dtype == torch.bfloat16
    as_float = (archive["a"].astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(from_float32(as_float, "BF16"), archive["a"])
    assert float((archive.tensor("a").float() - w.float()).abs().max()) < 0.15
    loaded = nw.load(tmp_path / "file.nwt")
    assert loaded["a"].data_ptr() == loaded["c"].data_ptr()
    assert list(loaded) == ["a", "b", "c"]


def test_stand_ins_decode_when_they_are_indexed(torch, compressed):
    archive = compressed("convolutional")
    lazy = archive.lazy()
    assert list(lazy) == list(archive)
    for name, item in lazy.items():
        whole = torch.from_numpy(archive[name])
        assert item.shape == whole.shape
        assert item.dtype == whole.dtype
        assert item.ndim == whole.ndim
        assert item.get_shape() == list(whole.shape)
        assert item.get_dtype() == archive.infos[name].dtype
        assert item.is_floating_point() == whole.is_floating_point()
        assert torch.equal(item[...], whole)
    assert torch.equal(lazy["conv1.weight"][3:7, 2], torch.from_numpy(archive["conv1.weight"])[3:7, 2])


def network_of_torch(torch):
    """Convolution, batch norm, a linear layer tied to an embedding."""
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
            self.embed = nn.Embedding(300, 32)
            self.head = nn.Linear(32, 300, bias=False)
            self.head.weight = self.embed.weight

    torch.manual_seed(0)
    return Net()


def test_a_module_there_and_back(torch, tmp_path):
    net = network_of_torch(torch)
    archive = nw.compress(net, tmp_path / "net.nwt", bits=6)
    assert archive.ties == {"head.weight": "embed.weight"}
    other = network_of_torch(torch)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(nw.load(tmp_path / "net.nwt"))
    assert other.head.weight is other.embed.weight
    for name, value in net.state_dict().items():
        back = other.state_dict()[name]
        assert back.dtype == value.dtype
        if value.is_floating_point():
            assert torch.allclose(back, value, atol=0.1)
        else:
            assert torch.equal(back, value)


# ---- decoding into memory that is there


@pytest.mark.parametrize("name", ["conv0.weight", "conv1.weight", "conv3.weight", "norm0.running_var"])
def test_reading_into_an_array(name, compressed):
    archive = compressed("convolutional")
    out = np.full(archive.infos[name].shape, np.nan, np.float32)
    archive.read_into(name, out)
    assert np.array_equal(out, archive[name])


@pytest.mark.parametrize("codec", ["uniform", "trellis"])
@pytest.mark.parametrize("caches", [0, 1 << 40])
def test_filling_many_arrays(codec, caches, tmp_path, monkeypatch):
    """Long tensors, short ones that share chunks, kernels and ties, some of them or all, around caches or not."""
    monkeypatch.setattr("netweight.archive.core.CACHES_BYTES", caches)
    random = np.random.default_rng(3)
    shapes = {"long": (700, 450), "other": (600, 300), "kernel": (64, 32, 3, 3), "empty": (0, 5), "scalar": ()}
    shapes |= {f"short{j}": (40 + j, 50) for j in range(6)}
    source = {name: random.standard_t(3, shape).astype(np.float32) for name, shape in shapes.items()}
    source["fine"] = source["other"] * np.float32(1e4)
    source["tied"] = source["long"]
    archive = nw.compress(source, tmp_path / "all.nwt", bits=5, codecs=[codec])
    assert archive.ties
    raw = {name: np.full(value.size + 40, np.nan, np.float32) for name, value in source.items()}
    outs = {name: raw[name][j : j + value.size].reshape(value.shape) for j, (name, value) in enumerate(source.items())}
    for names in (["long"], ["short1", "short4"], list(source)):
        for room in raw.values():
            room[:] = np.nan
        with nw.Archive.open(tmp_path / "all.nwt") as opened:
            opened.fill({name: outs[name] for name in names})
        for j, name in enumerate(source):
            size = source[name].size if name in names else 0
            if name in names:
                assert outs[name].tobytes() == archive[name].tobytes()
            assert np.isnan(raw[name][:j]).all()
            assert np.isnan(raw[name][j + size :]).all()


@pytest.mark.skipif(kernels.backend() != "c", reason="the C library is not in use: sections are read step by step")
def test_usual_sections_are_filled_in_a_single_call(tmp_path, monkeypatch):
    """Without a step in between, unless only a part is wanted; and then the bytes are the same."""
    random = np.random.default_rng(8)
    shapes = {"a": (700, 450), "b": (80, 50), "c": (1500,), "d": (64, 5, 1, 1), "t": (300, 300), "none": (0, 4)}
    choices = {name: ("trellis" if name in "td" else "uniform", index_of(0.4)) for name in shapes}
    choices["none"] = ("exact", 0)
    source = {name: (random.standard_normal(shape) * 2).astype(np.float32) for name, shape in shapes.items()}
    source["a"] *= np.exp(random.normal(0, 0.4, (700, 1))).astype(np.float32)
    archive = reopened(planned(source, choices), tmp_path)
    names = [name for name in shapes if name != "none"]
    expected = {name: archive[name].tobytes() for name in names}
    archive.close()
    outs = {name: np.full(shapes[name], np.nan, np.float32) for name in names}
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "section", None)
        for widest in (0, 1, 2):
            patch.setattr(kernels_decode, "WIDEST", widest)
            archive.fill(outs)
            assert {name: out.tobytes() for name, out in outs.items()} == expected
            for out in outs.values():
                out[...] = np.nan
        with pytest.raises(TypeError):
            archive.fill({"b": outs["b"]})
        patch.setattr("netweight.archive.filling.AT_ONCE", 1000)
        with pytest.raises(TypeError):
            archive.fill(outs)


def test_reading_into_what_does_not_fit(compressed):
    archive = compressed("convolutional")
    shape = archive.infos["conv1.weight"].shape
    for out in (np.empty(shape), np.empty(shape[1:], np.float32), np.empty(shape[::-1], np.float32).T):
        with pytest.raises(UsageError, match="does not fit"):
            archive.read_into("conv1.weight", out)
    with pytest.raises(UsageError, match="does not fit"):
        archive.read_into("norm0.num_batches_tracked", np.empty((), np.float32))
    with pytest.raises(KeyError):
        archive.read_into("no such tensor", np.empty(1, np.float32))


# ---- files


def test_saving_never_overwrites_unless_it_is_told_to(compressed, tmp_path):
    archive = compressed("alone")
    path = tmp_path / "file.nwt"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        archive.save(path)
    assert path.read_bytes() == b"precious"
    archive.save(path, force=True)
    assert path.stat().st_size == archive.nbytes
    assert [p.name for p in tmp_path.iterdir()] == ["file.nwt"]


def test_saving_the_file_that_is_open_over_itself(compressed, tmp_path):
    path = tmp_path / "file.nwt"
    compressed("alone").save(path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with Archive.open(path) as archive:
        archive.save(path, force=True)
        archive.check()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_a_folder_that_is_not_there(compressed, tmp_path):
    with pytest.raises(OutputError):
        compressed("alone").save(tmp_path / "nowhere" / "file.nwt")


def test_opening_what_is_no_archive(tmp_path):
    with pytest.raises(UsageError, match="There is no file"):
        Archive.open(tmp_path / "nothing.nwt")
    with pytest.raises(FormatError, match="cannot be read"):
        Archive.open(tmp_path)
    for data in (b"", b"\x89NWT", b"PK\x03\x04" * 20):
        (tmp_path / "other").write_bytes(data)
        with pytest.raises(FormatError):
            Archive.open(tmp_path / "other")
