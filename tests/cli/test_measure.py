"""`netweight measure`: Hugging Face folders, where transformers is installed; what is said where it is not."""

import sys

import numpy as np
import pytest

from netweight.importance.core import Importance


@pytest.fixture
def transformers(monkeypatch):
    pytest.importorskip("torch")
    found = pytest.importorskip("transformers", reason="the extra `transformers` is not installed")
    found.utils.logging.set_verbosity_error()
    found.utils.logging.disable_progress_bar()
    return found


SENTENCES = ["a cat sat on the mat", "the dog", "a red cat and a dog on the road", "the mat"]


@pytest.fixture
def text(folder):
    (folder / "data.txt").write_text("\n\n".join(SENTENCES) + "\n", encoding="utf-8")
    return "data.txt"


def save_tokenizer(transformers, folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for s in SENTENCES for w in s.split()})]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    transformers.BertTokenizerFast(
        vocab=str(folder / "vocab.txt"), vocab_file=str(folder / "vocab.txt")
    ).save_pretrained(folder)


def bert(transformers, folder, kind):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=64, **sizes)
    getattr(transformers, kind)(config).save_pretrained(folder)
    save_tokenizer(transformers, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "loss", "predictions"), [("BertModel", "squared", 4), ("BertForMaskedLM", "kl", 27)])
def test_text(transformers, folder, text, call, kind, loss, predictions):
    bert(transformers, folder / "bert", kind)
    outcome = call("measure", "bert", "-o", "x.imp", "--data", text, "--batch", "2", "--json")
    assert outcome.code == 0, outcome.err
    record = outcome.json["record"]
    assert (record["loss"], record["samples"], record["predictions"]) == (loss, 4, predictions)
    importance = Importance.open("x.imp")
    assert outcome.json["tensors"] == len(importance)
    assert outcome.json["bytes"] == (folder / "x.imp").stat().st_size
    prefix = "" if kind == "BertModel" else "bert."
    stat = importance[f"{prefix}encoder.layer.1.output.dense.weight"]
    assert stat.inputs.shape == (1, 48, 48)
    assert stat.outputs.shape == (32, 32)
    assert stat.samples == 27  # tokens; of the padding none
    words = importance.sums(f"{prefix}embeddings.word_embeddings.weight")[0].outputs.sum(0)
    assert words[0] == 0
    assert call("compress", "bert", "-o", "small/", "--bits", "8", "--importance", "x.imp").code == 0
    assert call("measure", "bert", "-o", "x.imp", "--data", text).code == 2  # exists


@pytest.mark.slow
def test_images(transformers, folder, call):
    image = pytest.importorskip("PIL.Image", reason="the extra `pillow` is not installed")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.ViTConfig(image_size=32, patch_size=16, num_labels=3, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    (folder / "photographs" / "more").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "more/c.png"):
        image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / "photographs" / name)
    outcome = call("measure", "vit", "-o", "x.imp", "--data", "photographs", "--samples", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["record"]["samples"] == 2
    importance = Importance.open("x.imp")
    assert importance["classifier.weight"].inputs.shape == (1, 32, 32)
    assert importance["vit.embeddings.cls_token"].diagonal.shape == (1, 1, 32)
    (folder / "photographs" / "broken.png").write_bytes(b"no image")
    outcome = call("measure", "vit", "-o", "y.imp", "--data", "photographs")
    assert outcome.code == 3
    assert "broken.png is no image" in outcome.err


def test_without_the_package(folder, text, call, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (folder / "net").mkdir()
    (folder / "net" / "config.json").write_text("{}", encoding="utf-8")
    outcome = call("measure", "net", "-o", "x.imp", "--data", text)
    assert outcome.code == 2
    assert outcome.err.splitlines() == [
        "netweight: The package transformers is not installed.",
        "  Install netweight with the extra: pip install 'netweight[transformers]'.",
    ]


def test_wrong_inputs(folder, text, call):
    assert call("measure", "nowhere", "-o", "x.imp", "--data", text).code == 2
    (folder / "empty").mkdir()
    outcome = call("measure", "empty", "-o", "x.imp", "--data", text)
    assert (outcome.code, "config.json" in outcome.err) == (2, True)
    assert call("measure", "empty", "-o", "x.imp", "--data", "nothing.txt").code == 2
    assert call("measure", "empty", "-o", "x.imp").code == 2
    assert not (folder / "x.imp").exists()


@pytest.mark.slow
def test_a_folder_may_name_models_only(transformers, folder, text, call):
    (folder / "net").mkdir()
    for name in ("pipeline", "NoSuchModel"):
        (folder / "net" / "config.json").write_text(f'{{"architectures": ["{name}"]}}', encoding="utf-8")
        outcome = call("measure", "net", "-o", "x.imp", "--data", text)
        assert outcome.code == 3
        assert f"is a '{name}', unknown to transformers" in outcome.err
