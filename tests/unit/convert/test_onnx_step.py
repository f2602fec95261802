"""Exportable models: decoding from zero states gives the logits of the models themselves."""

from typing import Any

import pytest
import torch

from conftest import STORY
from moreish.convert.onnx.counts import HashTable, make_exportable
from moreish.data.encode import encode_corpus
from moreish.data.text.corpus import Corpus
from moreish.data.token_dataset import TokenDataset
from moreish.models import REGISTRY, Model, build_model, model_config
from moreish.tokenizers.char import CharTokenizer
from support.exports import GPT, MODELS


def test_every_model_is_covered() -> None:
    assert {settings["name"] for settings in MODELS.values()} == {
        name for name in REGISTRY if not REGISTRY[name].needs_examples
    }


def build(settings: dict[str, Any], kind: str) -> tuple[Model, TokenDataset]:
    """Returns a model with random weights and counts of the story, and its training tokens."""
    pieces = [line for line in STORY.split("\n") if line] if kind == "lines" else [STORY * 4]
    tokenizer = CharTokenizer.build(pieces, boundary=kind == "lines")
    corpus = Corpus.of(pieces, kind)  # type: ignore[arg-type]
    tokens = encode_corpus(corpus, tokenizer, "seeded", 42)["train"]
    longest = max(map(len, pieces)) if kind == "lines" else None
    torch.manual_seed(0)
    model = build_model(
        model_config(settings).for_data(longest, tokenizer.vocab_size), tokenizer.vocab_size
    )
    model.fit_counts(tokens)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), tokens


@pytest.mark.parametrize("kind", ["lines", "text"])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_logits_match_the_model(name: str, kind: str) -> None:
    model, tokens = build(MODELS[name], kind)
    exportable = make_exportable(model)
    # The text itself, from a boundary and from the token after it; and random tokens.
    known_T = torch.from_numpy(tokens.ids_N[:40].astype("int64"))
    tokens_BT = torch.stack(
        [known_T, known_T.roll(-1), torch.randint(model.vocab_size, (len(known_T),))]
    )
    state, own = tuple(spec.zeros(3) for spec in exportable.state_specs.values()), None
    pieces, slides = [5, 1, 1, 3, 1, 9], model.max_length is None or "rotary" in name
    for piece_BT in tokens_BT.split([*pieces, 12, 1, 7] if slides else [*pieces, 20], dim=1):
        if piece_BT.shape[1] == 20 and not slides:
            break  # learned positions end with the context
        expected_BTV, own = model(piece_BT, own)
        found_BTV, *state = exportable(piece_BT, *state)
        assert found_BTV.shape == expected_BTV.shape
        torch.testing.assert_close(found_BTV, expected_BTV, rtol=1e-5, atol=1e-5)
    assert expected_BTV[expected_BTV.isfinite()].std() > 0.1
    for tensor, spec in zip(state, exportable.state_specs.values(), strict=True):
        assert tensor.dtype == spec.dtype
        sizes = [3 if size == "batch" else size for size in spec.shape]
        assert [size for size in sizes if size != "past"] == [
            size for size, known in zip(tensor.shape, sizes, strict=True) if known != "past"
        ]


def test_rows_are_independent() -> None:
    """Other sequences of the batch do not change the logits of a sequence."""
    for name in ("bow", "kneser-ney", "gpt, n-grams"):
        model, _ = build(MODELS[name], "lines")
        exportable = make_exportable(model).requires_grad_(False)
        tokens_BT = torch.randint(model.vocab_size, (4, 9))
        whole, *_ = exportable(
            tokens_BT, *(spec.zeros(4) for spec in exportable.state_specs.values())
        )
        alone, *_ = exportable(
            tokens_BT[2:3], *(spec.zeros(1) for spec in exportable.state_specs.values())
        )
        torch.testing.assert_close(whole[2:3], alone)


def test_the_model_is_copied() -> None:
    model, _ = build(GPT, "lines")
    before = model.state_dict()
    make_exportable(model).requires_grad_(False).model.embedding.weight.zero_()
    assert model.state_dict()["embedding.weight"].any() and before.keys() == {*model.state_dict()}


def test_hash_tables_find_values_by_key() -> None:
    """The same key may be in several tables, or in none."""
    rng = torch.Generator().manual_seed(0)
    keys = [torch.randperm(2**40 if n > 10**4 else 2000, generator=rng)[:n] for n in (700, 3)]
    tables = [(key, torch.randn(len(key), generator=rng)) for key in keys]
    table = HashTable(tables, default=7.0)
    keys_N = torch.arange(2000)
    values = table(torch.stack([keys_N, keys_N], dim=-1))
    for i, (key, value) in enumerate(tables):
        expected = torch.full((2000,), 7.0)
        expected[key] = value
        assert torch.equal(values[:, i], expected)
