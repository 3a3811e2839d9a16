"""`netweight bound` and `netweight report`: exit codes, streams, JSON, files."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import netweight as nw
from netweight.bound import MODELS
from netweight.cli import main
from netweight.importance.core import Importance, Record
from netweight.importance.stat import Stat


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a network and a file of it."""
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    tensors = {
        "a.weight": random.normal(size=(96, 128)).astype(np.float32),
        "a.bias": random.normal(size=96).astype(np.float32),
        "steps\x1b[2J": np.arange(9),
    }
    save_file(tensors, folder / "m.safetensors")
    assert main(["compress", str(folder / "m.safetensors"), "-o", str(folder / "m.nwt"), "--bits", "4", "-q"]) == 0
    save_file({"b": tensors["a.bias"]}, folder / "other.safetensors")
    root = random.normal(size=(128, 128)) * 2.0 ** random.normal(size=128)
    stats = {"a.weight": Stat(1e-3, inputs=(root @ root.T / 128)[None]), "a.bias": Stat(2.0)}
    record = Record(data="ab" * 32, samples=512, loss="kl", objective="fisher")
    Importance.of(stats, record).save(folder / "m.imp")
    words = ["compress", str(folder / "m.safetensors"), "-o", str(folder / "nats.nwt"), "--bits", "4", "-q"]
    assert main([*words, "--importance", str(folder / "m.imp")]) == 0
    return folder


@pytest.fixture
def call(made, monkeypatch, capfd):
    """Run a verb there; give code, stdout and stderr."""
    monkeypatch.chdir(made)

    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(words))
        return code, *capfd.readouterr()

    return call


class TestBound:
    def test_text(self, call):
        code, out, err = call("bound", "m.nwt", "--against", "m.safetensors")
        assert (code, err) == (0, "")
        for words in ("Gaussian by row", "from R(D)", "header", "a.weight", "no bound for the trained weights"):
            assert words in out
        assert "\x1b" not in out

    @pytest.mark.parametrize("model", MODELS)
    def test_json_adds_up(self, call, made, model):
        code, out, _ = call("bound", "m.nwt", "--against", "m.safetensors", "--json", "--model", model)
        data = json.loads(out)
        assert code == 0
        assert data["schema"] == "netweight.bound/1"
        assert data["bytes"] == (made / "m.nwt").stat().st_size
        assert data["gap"]["model"] == model
        whole = data["gap"]["bound_bits"] + sum(data["gap"]["parts"].values())
        assert whole == pytest.approx(8 * data["bytes"], rel=1e-9)
        assert {t["name"] for t in data["tensors"] if t["outside"]} == {"steps\x1b[2J"}
        assert set(data["rate_bits"]) == set(MODELS)

    def test_checkpoint_alone(self, call):
        code, out, _ = call("bound", "m.safetensors", "--json")
        data = json.loads(out)
        assert code == 0
        rates = data["rates"]
        assert [row["bits_per_weight"] for row in rates] == sorted(row["bits_per_weight"] for row in rates)
        for row in rates:
            assert row["rate_bits"]["gaussian"] < row["predicted_bits"] < row["rate_bits"]["gaussian"] + 0.5 * 12_500
            assert row["least_loss"]["gaussian"] < row["predicted_loss"]

    def test_checkpoint_alone_as_text(self, call):
        code, out, _ = call("bound", "m.safetensors")
        assert code == 0
        assert "file bits/weight" in out

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            (("m.nwt",), 2, "Add --against ORIGINAL"),
            (("m.safetensors", "--against", "m.safetensors"), 2, "Leave --against out"),
            (("m.nwt", "--against", "other.safetensors"), 2, "differ in 4 tensors"),
            (("m.nwt", "--against", "m.safetensors", "--model", "cauchy"), 2, "Known are: gaussian-kernels"),
            (("none.nwt",), 2, "There is no none.nwt"),
        ],
    )
    def test_usage(self, call, words, code, message):
        found, out, err = call("bound", *words)
        assert (found, out) == (code, "")
        assert message in err

    def test_a_damaged_file(self, call, made):
        data = bytearray((made / "m.nwt").read_bytes())
        data[-50] ^= 4
        (made / "bad.nwt").write_bytes(data)
        assert call("bound", "bad.nwt", "--against", "m.safetensors")[0] == 3


class TestImportance:
    """The bound in nats of what was measured."""

    def test_a_file_beside_its_original(self, call, made):
        words = ("bound", "nats.nwt", "--against", "m.safetensors", "--json")
        code, out, err = call(*words, "--importance", "m.imp")
        data = json.loads(out)
        assert (code, err) == (0, "")
        importance = Importance.open(made / "m.imp")
        with safe_open(made / "m.safetensors", "np") as file:
            before = {name: file.get_tensor(name) for name in ("a.weight", "a.bias")}
        after = nw.load(made / "nats.nwt", framework="numpy")
        losses = {name: importance[name].loss(w, w.astype(float) - after[name]) for name, w in before.items()}
        assert data["loss"] == pytest.approx(sum(losses.values()), rel=1e-6)
        assert {t["name"]: t["loss"] for t in data["tensors"] if not t["outside"]} == pytest.approx(losses, rel=1e-6)
        assert data["rate_bits"]["gaussian-rows"] < data["universal_bits"] < data["modelled_bits"]
        whole = data["gap"]["bound_bits"] + sum(data["gap"]["parts"].values())
        assert whole == pytest.approx(8 * data["bytes"], rel=1e-9)
        code, out, err = call(*words)
        assert code == 0
        assert "planned by a measured importance" in err
        assert json.loads(out)["universal_bits"] is None

    def test_a_checkpoint_alone(self, call):
        code, out, _ = call("bound", "m.safetensors", "--importance", "m.imp", "--json")
        assert code == 0
        for row in json.loads(out)["rates"]:
            assert row["rate_bits"]["gaussian-rows"] <= row["universal_bits"] < row["predicted_bits"] + 0.1 * 12_384
            assert row["least_loss"]["gaussian-rows"] < row["predicted_loss"]

    def test_texts_name_what_the_decoder_knows(self, call):
        for words in (("nats.nwt", "--against", "m.safetensors"), ("m.safetensors",)):
            code, out, _ = call("bound", *words, "--importance", "m.imp")
            assert code == 0
            assert "inputs unknown" in out
            assert "it is no bound." in out

    @pytest.mark.parametrize("given", [True, False])
    def test_a_page_tells_the_record(self, call, made, given):
        with nw.Archive.open(made / "nats.nwt") as archive:
            noted = archive.noted(heldout={"nats": 0.0123, "se" if given else "nats_error": 0.001, "samples": 1000})
            noted.save(made / "noted.nwt", force=True)
        words = ("report", "noted.nwt", "--against", "m.safetensors", "-o", "nats.html", "--force")
        assert call(*words, *(("--importance", "m.imp") if given else ()))[0] == 0
        page = (made / "nats.html").read_text(encoding="utf-8")
        for text in (
            "importance: data",
            "ab" * 32,
            "importance: objective",
            "0.0123 ± 0.001",
            "1,000 held-out samples",
        ):
            assert text in page
        assert ("quadratic form of the measured importance" in page) == given
        assert ("inputs unknown" in page) == given
        assert ("planned for a loss of another kind" in page) != given


class TestReport:
    @pytest.mark.parametrize("against", [(), ("--against", "m.safetensors")])
    def test_writes_a_page(self, call, made, against):
        code, out, err = call("report", "m.nwt", *against, "-o", "page.html", "--json", "--force")
        data = json.loads(out)
        assert code == 0
        assert data["schema"] == "netweight.report/1"
        page = (made / "page.html").read_bytes()
        assert data["bytes"] == len(page)
        assert page.startswith(b"<!doctype html>")
        assert "written in" in err

    def test_never_overwrites_without_force(self, call, made):
        (made / "kept.html").write_text("mine")
        code, out, err = call("report", "m.nwt", "-o", "kept.html")
        assert (code, out) == (2, "")
        assert "--force" in err
        assert (made / "kept.html").read_text() == "mine"

    def test_not_over_its_input(self, call, made):
        before = (made / "m.nwt").read_bytes()
        assert call("report", "m.nwt", "-o", "m.nwt", "--force")[0] == 2
        assert (made / "m.nwt").read_bytes() == before

    def test_nor_over_the_original(self, call, made):
        before = (made / "m.safetensors").read_bytes()
        words = ("report", "m.nwt", "--against", "m.safetensors", "-o", "m.safetensors", "--force")
        assert call(*words)[0] == 2
        assert (made / "m.safetensors").read_bytes() == before

    def test_needs_an_output(self, call):
        assert call("report", "m.nwt")[0] == 2

    def test_leaves_nothing_after_an_error(self, call, made):
        before = set(made.iterdir())
        assert call("report", "m.nwt", "--against", "other.safetensors", "-o", "new.html")[0] == 2
        assert set(made.iterdir()) == before


def test_neither_verb_imports_torch(made):
    import subprocess
    import sys

    code = (
        "import sys\nfrom netweight.cli import main\n"
        f"main(['report', {str(made / 'm.nwt')!r}, '-o', {str(made / 'torchless.html')!r}, '--force', '-q'])\n"
        f"main(['bound', {str(made / 'm.nwt')!r}, '--against', {str(made / 'm.safetensors')!r}, '-q'])\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
