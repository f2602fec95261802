"""Import from and export to transformers: the same logits, or an error that says why not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import Moreish
from moreish import api
from moreish.convert import hf_export
from moreish.errors import MoreishError
from support.exports import GPT, LLAMA, train_model
from support.random_transformers import SHAPES, save_random_model


@pytest.mark.parametrize("name", SHAPES)
def test_logits_match_transformers(name: str, tmp_path: Path) -> None:
    theirs = save_random_model(tmp_path / "hf", name)
    run = api.import_hf(tmp_path / "hf", out=tmp_path / "run")
    tokens = torch.randint(300, (2, 24))
    with torch.inference_mode():
        ours, _ = api.load(tmp_path / "run").model(tokens)
        expected = theirs(tokens).logits[..., :300]
    assert (ours - expected).abs().max() < 1e-4
    assert expected.std() > 0.4
    assert run.record.parameters == sum(p.numel() for p in run.model.parameters())
    if "padded" not in name:
        assert run.record.parameters == theirs.num_parameters()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_greedy_samples_match_transformers(name: str, tmp_path: Path) -> None:
    theirs = save_random_model(tmp_path / "hf", name)
    run = api.import_hf(tmp_path / "hf", out=tmp_path / "run")
    ids = torch.tensor(
        [[0, *run.tokenizer.encode("the").tolist()]]
    )  # every text starts after a boundary
    length = ids.shape[1]
    options = {"max_new_tokens": 24 - length, "do_sample": False, "pad_token_id": 0}
    written = theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)[0]
    text = run.sample(1, prompt="the", temperature=0, max_tokens=24 - length)[0]
    assert run.tokenizer.decode(written.numpy()) == text


def test_weights_in_several_files_and_in_half_precision(tmp_path: Path) -> None:
    whole = save_random_model(tmp_path / "one", "llama")
    save_random_model(tmp_path / "parts", "llama", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("model-*.safetensors"))) > 2
    whole.half().save_pretrained(tmp_path / "one")
    runs = [api.import_hf(tmp_path / n, out=tmp_path / f"r-{n}") for n in ("one", "parts")]
    tokens = torch.randint(300, (2, 24))
    with torch.inference_mode():
        half, exact = (run.model(tokens)[0] for run in runs)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.1


def test_a_run_without_data(tmp_path: Path, moreish: Moreish) -> None:
    save_random_model(tmp_path / "hf", "gpt2")
    shown = moreish("import", "hf", tmp_path / "hf", "--out", "r")
    assert "a GPT of" in shown.out and "3 layers, width 32, context 24" in shown.out
    assert moreish("sample", "r", "-n", "2", "--max-tokens", "9").status == 0
    assert moreish("eval", "r", "--text", "the story").status == 0
    for verb in (["eval"], ["novelty"], ["report"], ["sample", "--new-only"]):
        refused = moreish(verb[0], "r", *verb[1:])
        assert refused.status == 2 and "has no data" in refused.err, (verb, refused)
    refused = moreish("train", "--resume", "r")
    assert refused.status == 2 and "cannot be resumed" in refused.err
    again = moreish("import", "hf", tmp_path / "hf", "--out", "r")
    assert again.status == 2 and "--overwrite" in again.err
    assert moreish("import", "hf", tmp_path / "hf", "--out", "r", "--overwrite").status == 0


def _config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    settings = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def _weights(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)


DAMAGED: dict[str, tuple[Any, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "must be in the safetensors",
    ),
    "damaged config": (lambda f: (f / "config.json").write_text("{"), "is damaged"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "another kind": (lambda f: _config(f, model_type="t5"), "type 't5'"),
    "another activation": (lambda f: _config(f, activation_function="x"), "activation_function=x"),
    "no layers": (lambda f: _config(f, n_layer=None), "is damaged: KeyError('n_layer')"),
    "words for layers": (lambda f: _config(f, n_layer="3"), "model.layers='3': give an integer"),
    "too many layers": (lambda f: _config(f, n_layer=10**9), "model.layers"),
    "more layers": (lambda f: _config(f, n_layer=4), "h.3.attn.c_attn.weight is missing"),
    "fewer layers": (lambda f: _config(f, n_layer=2), "unknown tensor: h.2."),
    "another width": (lambda f: _config(f, n_embd=64), "is (300, 32), not (300, 64)"),
    "a large width": (lambda f: _config(f, n_embd=2**20), "is damaged"),
    "fewer rows": (
        lambda f: _weights(f, lambda t: t.update({"transformer.wte.weight": torch.ones(9, 32)})),
        "is (9, 32), not (300, 32)",
    ),
    "damaged weights": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "is damaged"),
    "an index to elsewhere": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}'),
        "it names no files",
    ),
    "another tokenizer": (
        lambda f: (f / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}'),
        "of another kind",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_folders_are_refused(name: str, tmp_path: Path) -> None:
    save_random_model(tmp_path / "hf", "gpt2")
    change, why = DAMAGED[name]
    change(tmp_path / "hf")
    with pytest.raises(MoreishError) as error:
        api.import_hf(tmp_path / "hf", out=tmp_path / "run")
    assert why in str(error.value) and "\n" not in str(error.value)
    assert "MoreishError" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"hidden_act": "gelu"}, "hidden_act=gelu"),
        ({"attention_bias": True}, "attention_bias=True"),
        ({"head_dim": 16}, "head_dim=16"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_type=llama3"),
    ],
)
def test_unsupported_llamas_are_refused(settings: Any, why: str, tmp_path: Path) -> None:
    save_random_model(tmp_path / "hf", "llama")
    _config(tmp_path / "hf", **settings)
    with pytest.raises(MoreishError, match=why):
        api.import_hf(tmp_path / "hf", out=tmp_path / "run")


def test_names_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MoreishError, match="no folder nowhere"):
        api.import_hf("nowhere", out=tmp_path / "run")
    import huggingface_hub

    def unreachable(*args: object, **options: object) -> str:
        raise ConnectionError("no way there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(MoreishError, match=r"cannot be downloaded \(no way there\): download"):
        api.import_hf("openai-community/gpt2", out=tmp_path / "run")
    save_random_model(tmp_path / "hf", "gpt2")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **o: str(tmp_path / "hf"))
    assert api.import_hf("openai-community/gpt2", out=tmp_path / "run").record.parameters


# --- export ---

EXPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2 of bytes": ("byte", {}),
    "gpt2 of pairs": ("bpe", {"tied": True}),
    "gpt2 of characters, no biases": ("char", {"bias": False, "feedforward": "relu"}),
    "llama of pairs": ("bpe", {**LLAMA, "kv_heads": 2}),
    "llama of characters": ("char", {**LLAMA, "tied": True, "feedforward_width": 40}),
}


@pytest.mark.parametrize("kind", ["lines", "text"])
@pytest.mark.parametrize("name", EXPORTED)
def test_transformers_agrees(name: str, kind: str, tmp_path: Path, moreish: Moreish) -> None:
    tokenizer, model = EXPORTED[name]
    run = train_model(tmp_path, {**GPT, **model}, kind=kind, tokenizer=tokenizer, steps=20)
    shown = moreish("export", run.path, "--out", "hf", "--license", "mit", "--json").json
    assert shown["logit_difference"] < 1e-4 and shown["tokens_alike"] >= 11
    assert shown["kind"] == name.split()[0]
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained("hf").eval()
    reader = transformers.AutoTokenizer.from_pretrained("hf")
    ids = reader("the story", add_special_tokens=False)["input_ids"]
    assert ids == run.tokenizer.encode("the story").tolist()
    assert reader.decode(ids, clean_up_tokenization_spaces=False) == "the story"
    with torch.inference_mode():
        difference = theirs(torch.tensor([ids])).logits - run.model(torch.tensor([ids]))[0]
    assert difference.abs().max() < 1e-4
    card = Path("hf/README.md").read_text()
    assert "license: mit" in card and run.record.data.sha256["train"] in card
    if tokenizer == "bpe":  # also import it again
        again = api.import_hf("hf", out=tmp_path / "again")
        with torch.inference_mode():
            difference = again.model(torch.tensor([ids]))[0] - run.model(torch.tensor([ids]))[0]
        assert not difference.any()
    refused = moreish("export", run.path, "--out", "hf")
    assert refused.status == 2 and "--overwrite replaces" in refused.err
    assert moreish("export", run.path, "--out", "hf", "--overwrite").status == 0


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"name": "lstm", "width": 8}, "no lstm"),
        ({"qk_norm": True}, "model.qk_norm=True"),
        ({"ngram_embedding": 3}, "model.ngram_embedding=3"),
        ({"positions": "rotary"}, "only two architectures"),
        ({**LLAMA, "bias": True}, "no biases"),
        ({"kv_heads": 2}, "no grouped-query attention"),
        ({"tokenizer": "word"}, "no tokenizer like 'word'"),
    ],
)
def test_unsupported_models_are_refused(model: dict[str, Any], why: str, tmp_path: Path) -> None:
    tokenizer = model.get("tokenizer")
    model = {key: value for key, value in model.items() if key != "tokenizer"}
    model = model if "name" in model else {**GPT, **model}
    run = train_model(tmp_path, model, tokenizer=tokenizer)
    with pytest.raises(MoreishError, match=why):
        api.export(run, tmp_path / "hf", to="hf")
    assert not list(tmp_path.glob("*hf*"))
    with pytest.raises(MoreishError, match="--to gguff"):
        api.export(run, tmp_path / "hf", to="gguff")


def test_an_export_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_model(tmp_path, GPT, steps=9)
    correct_map = hf_export.map_to_hf

    def wrong_epsilon(*args: Any) -> Any:
        model, config, tensor_maps = correct_map(*args)
        return model, {**config, "layer_norm_epsilon": 0.1}, tensor_maps

    monkeypatch.setattr(hf_export, "map_to_hf", wrong_epsilon)
    with pytest.raises(MoreishError, match=r"does not reproduce this run \(logits differ"):
        api.export(run, tmp_path / "hf")
    monkeypatch.setattr(hf_export, "map_to_hf", correct_map)
    correct_tokenizer = hf_export.tokenizer_to_hf

    def swapped(tokenizer: Any) -> Any:
        tree = correct_tokenizer(tokenizer)
        vocab = tree["model"]["vocab"]
        vocab["e"], vocab["t"] = vocab["t"], vocab["e"]
        return tree

    monkeypatch.setattr(hf_export, "tokenizer_to_hf", swapped)
    with pytest.raises(MoreishError, match=r"encodes .* differently"):
        api.export(run, tmp_path / "hf")
    assert not list(tmp_path.glob("*hf*"))
