"""Files that may end early: any length from the first refinement point on is a network, and a longer one is better."""

import json
import warnings
from itertools import pairwise
from random import Random

import coder
import decode as reference
import forge
import numpy as np
import pytest
from victims import encoded

import netweight as nw
from netweight.archive import Archive
from netweight.bound.account import account
from netweight.codecs.base import index_of
from netweight.codecs.registry import codecs
from netweight.codecs.surp import Ladder, Surp
from netweight.errors import FormatError, UsageError

pytestmark = pytest.mark.core


def small() -> bytes:
    """Two ladders of several rungs in shared sections, one alone, and what does not refine."""
    random = np.random.default_rng(3)
    return encoded(
        {
            "a": (random.laplace(size=(30, 20)).astype(np.float32), "surp", index_of(0.5)),
            "b": (random.laplace(size=(12, 4, 3, 3)).astype(np.float16), "surp", index_of(0.9)),
            "bias": (random.standard_normal(30).astype(np.float32), "uniform", index_of(0.05)),
            "steps": (np.arange(5), "exact", 0),
        }
    )


@pytest.fixture(scope="module")
def whole() -> bytes:
    return small()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "file.nwt"


def arrays(archive: Archive) -> dict[str, np.ndarray]:
    return {name: archive[name].copy() for name in archive}


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    return sum(float(np.abs(one[n].astype(np.float64) - other[n]).sum()) for n in one)


def test_sections_go_level_by_level(whole, place):
    place.write_bytes(whole)
    with Archive.open(place) as archive:
        header, points = archive.header, archive.refinements()
    streams = [section.stream for section in header.sections]
    first = sum(section.codec != "surp" for section in header.sections)
    ladder = [int(stream) for stream in streams[first:]]
    assert ladder == sorted(ladder, reverse=True)
    assert ladder[-1] == 0
    assert header.refine == first + ladder.count(ladder[0])
    assert [point.stream for point in points] == [str(j) for j in sorted(set(ladder), reverse=True)]
    assert points[-1].nbytes == len(whole)
    assert all(point.here for point in points)


def test_every_length(whole, place):
    """A FormatError before the first point, then the network of the last section that is whole, with a warning."""
    place.write_bytes(whole)
    with Archive.open(place) as archive:
        points = [point.nbytes for point in archive.refinements()]
        source = arrays(archive)
    seen: dict[int, dict[str, np.ndarray]] = {}
    for size in range(len(whole) - 1, 0, -1):
        place.write_bytes(whole[:size])
        if size < points[0]:
            with pytest.raises(FormatError):
                Archive.open(place)
            continue
        with pytest.warns(UserWarning, match=rf"has {size} of {len(whole)} bytes: the network is the one of"):
            archive = Archive.open(place)
        if archive.nbytes not in seen:
            archive.check()
            seen[archive.nbytes] = arrays(archive)
            found = reference.decode(place)
            for name, array in seen[archive.nbytes].items():
                assert array.tobytes() == found[name].tobytes()
        assert archive.nbytes == max(point for point in points if point <= size)
        archive.close()
    assert sorted(seen) == points[:-1]
    apart = [distance(source, seen[size]) for size in points[:-1]]
    assert all(after < before for before, after in pairwise([*apart, 0.0]))
    for found in seen.values():
        assert found["bias"].tobytes() == source["bias"].tobytes()
        assert found["steps"].tobytes() == source["steps"].tobytes()


def test_between_two_levels(place):
    """Sections of a level are several, small ones first; each of them brings the network nearer."""
    random = np.random.default_rng(5)
    sizes = {"large": 90, "small": 50, "larger": 100}
    tensors = {n: random.laplace(size=(side, side)).astype(np.float32) for n, side in sizes.items()}
    place.write_bytes(encoded({n: (w, "surp", index_of(0.3)) for n, w in tensors.items()}))
    with Archive.open(place) as archive:
        header, points, source = archive.header, archive.refinements(), arrays(archive)
    levels = [[s for s in header.sections if s.stream == point.stream] for point in points]
    for level in levels[-2:]:
        assert [[header.tensors[m].name for m in s.members] for s in level] == [["small"], ["large"], ["larger"]]
    ends = [
        archive.header_bytes + sum(s.size for s in header.sections[:n])
        for n in range(header.refine, len(header.sections) + 1)
    ]
    assert len(ends) > 2 * len(points)
    apart = []
    for end in ends:
        with Archive.open(place, max_bytes=end) as archive:
            assert archive.nbytes == end
            found = arrays(archive)
        place.with_name("cut.nwt").write_bytes(place.read_bytes()[:end])
        assert all(found[n].tobytes() == w.tobytes() for n, w in reference.decode(place.with_name("cut.nwt")).items())
        apart.append(distance(source, found))
    assert all(after < before for before, after in pairwise(apart))
    assert apart[-1] == 0


def test_at_most_so_many_bytes(whole, place, tmp_path):
    place.write_bytes(whole)
    with Archive.open(place) as archive:
        points = [point.nbytes for point in archive.refinements()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in points:
            with Archive.open(place, max_bytes=size + 1) as archive:
                assert archive.nbytes == size
                coarse = arrays(archive)
                archive.save(tmp_path / "cut.nwt", force=True)
                assert sum(row.nbytes for row in archive.rows()) == pytest.approx(size - archive.header_bytes)
                assert sum(account(archive).sections) == pytest.approx(8 * (size - archive.header_bytes))
            assert (tmp_path / "cut.nwt").read_bytes() == whole[:size]
            assert distance(coarse, nw.load(place, framework="numpy")) == 0 or size < points[-1]
    with pytest.raises(UsageError, match=rf"are no network, its first refinement point is at {points[0]}"):
        Archive.open(place, max_bytes=points[0] - 1)


def test_a_tensor_that_begins_later_is_zero_before(whole, place):
    place.write_bytes(whole)
    with Archive.open(place) as archive:
        first = archive.refinements()[0].nbytes
        begins = {name: min(n for n, _ in archive._home[j]) for name, j in archive._index.items()}
        refine = archive.header.refine
    with Archive.open(place, max_bytes=first) as archive:
        later = [name for name in archive if begins[name] >= refine]
        assert later, "one ladder begins below the other"
        for name in later:
            assert not archive[name].any()
            out = np.ones(archive.infos[name].shape, np.float32)
            if archive.infos[name].dtype == "F32":
                archive.read_into(name, out)
                assert not out.any()


@pytest.mark.parametrize("ladder", [Ladder(1), Ladder(1, 3), Ladder(2, 0), Ladder(2, 8)], ids=str)
def test_ladders_of_others(ladder, place, monkeypatch):
    """A file says which ladder it climbs."""
    with monkeypatch.context() as patch:
        patch.setitem(codecs(), "surp", Surp(ladder))
        place.write_bytes(small())
    with Archive.open(place) as archive:
        assert archive.header.params[0][1:] == (ladder.rise, ladder.offset)
        found = reference.decode(place)
        for name, array in archive.items():
            assert array.tobytes() == found[name].tobytes()


@pytest.mark.parametrize("params", [[0, 0, 4], [0, 3, 4], [0, 2, 9], [0, 2, -1], [51201, 2, 4], [-61441, 2, 4], [0, 2]])
def test_ladders_that_do_not_stand(params, whole, place):
    header, parts = forge.take_apart(whole)
    header["params"] = [params if len(p) == 3 else p for p in header["params"]]
    place.write_bytes(forge.put_together(header, parts))
    with pytest.raises(FormatError, match=r"a ladder of step|2 parameters for the codec 'surp'"):
        Archive.open(place).check()
    with pytest.raises((coder.Damaged, ValueError)):
        reference.decode(place)


def test_files_that_do_not_refine(place):
    random = np.random.default_rng(0)
    place.write_bytes(encoded({"w": (random.normal(size=(30, 40)).astype(np.float32), "trellis", index_of(0.5))}))
    with Archive.open(place) as archive:
        assert archive.refinements() == []
        assert archive.header.refine == 0
    with pytest.raises(UsageError, match=r"nothing in it can be left out"):
        Archive.open(place, max_bytes=200)
    with Archive.open(place, max_bytes=10**6) as archive:
        archive.check()


@pytest.mark.slow
def test_bits(whole, place):
    """Whatever bit is wrong is found out."""
    found = []
    for bit in Random(0).sample(range(8 * len(whole)), 400):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        place.write_bytes(broken)
        try:
            with Archive.open(place) as archive:
                archive.check()
            found.append(bit)
        except FormatError:
            continue
    assert found == []


# ---- the command line


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Run the command in a folder with a small network."""
    from safetensors.numpy import save_file

    from netweight.cli import main

    random = np.random.default_rng(1)
    monkeypatch.chdir(tmp_path)
    tensors = {f"w{j}": random.laplace(size=(120, 80)).astype(np.float32) * 2.0**j for j in range(2)}
    save_file(tensors | {"bias": random.normal(size=120).astype(np.float32)}, "model.safetensors")

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    assert run("compress", "model.safetensors", "-o", "model.nwt", "--bits", "3", "--codec", "surp", "-q")[0] == 0
    return run


def test_inspect_and_restore(command, tmp_path):
    code, out, _ = command("inspect", "model.nwt", "--json")
    points = json.loads(out)["refinements"]
    assert code == 0
    assert len(points) > 3
    assert points[-1] == {"stream": "0", "nbytes": (tmp_path / "model.nwt").stat().st_size, "here": True}
    code, out, _ = command("inspect", "model.nwt")
    assert "refinement  stream  bytes" in out
    assert f"{points[0]['nbytes']:,}" in out
    original = nw.Archive.open(tmp_path / "model.nwt")
    apart = []
    for point in points:
        words = ("restore", "model.nwt", "-o", "back.safetensors", "--force", "--json", "--max-bytes", point["nbytes"])
        code, out, err = command(*words)
        assert (code, json.loads(out)["used_bytes"]) == (0, point["nbytes"])
        assert f"refinement {len(apart) + 1} of {len(points)}" in err
        from safetensors.numpy import load_file

        apart.append(distance(dict(original), load_file("back.safetensors")))
    assert all(after < before for before, after in pairwise(apart))
    assert apart[-1] == 0


def test_a_download_that_broke_off(command, tmp_path):
    points = json.loads(command("inspect", "model.nwt", "--json")[1])["refinements"]
    data = (tmp_path / "model.nwt").read_bytes()
    (tmp_path / "cut.nwt").write_bytes(data[: points[1]["nbytes"] + 5])
    code, _, err = command("restore", "cut.nwt", "-o", "back.safetensors")
    assert code == 0
    assert f"warning: cut.nwt has {points[1]['nbytes'] + 5} of {len(data)} bytes" in err
    assert f"refinement 2 of {len(points)}" in err
    code, out, _ = command("verify", "cut.nwt")
    assert code == 1
    assert "sections that refine the network are missing" in out
    code, out, err = command("inspect", "cut.nwt", "--json")
    assert [point["here"] for point in json.loads(out)["refinements"]] == [True, True] + [False] * (len(points) - 2)
    (tmp_path / "short.nwt").write_bytes(data[: points[0]["nbytes"] - 1])
    assert command("restore", "short.nwt", "-o", "none.safetensors")[0] == 3
    assert not (tmp_path / "none.safetensors").exists()
    code, _, err = command("restore", "model.nwt", "-o", "none.safetensors", "--max-bytes", 300)
    assert code == 2
    assert f"Take at least {points[0]['nbytes']}." in err
