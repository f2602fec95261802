"""Models of examples: state, causality, independence of neighbors, and what they learn."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from moreish.data.examples import ExampleCorpus, encode_examples
from moreish.data.token_dataset import TokenDataset
from moreish.models import REGISTRY, CountBasedModel, build_model, model_config
from moreish.models.label_hybrid import LabelHybrid
from moreish.tasks import Example
from moreish.tokenizers import CharTokenizer, ExampleTokenizer

V, SEPARATOR = 12, 11
NAMES = sorted(name for name in REGISTRY if REGISTRY[name].needs_examples)
CASES = [
    ("encoder-decoder", {"width": 16, "heads": 2, "context": 40}),
    (
        "encoder-decoder",
        {
            "width": 16, "heads": 2, "layers": 1, "encoder_layers": 3, "context": 40,
            "positions": "learned", "tied": True, "norm_place": "after", "feedforward": "swiglu",
        },
    ),
    ("encoder-decoder", {"width": 16, "context": 40, "ngram_embedding": 2}),
    ("encoder-decoder", {"width": 16, "heads": 4, "kv_heads": 2, "qk_norm": True, "context": 40}),
    *(
        ("encoder", {"width": 16, "heads": 2, "layers": 2, "context": 40, "pooling": pooling})
        for pooling in ("first", "last", "mean", "max")
    ),
    ("encoder", {"width": 16, "layers": 0, "context": 40, "ngram_embedding": 3}),
    ("naive-bayes", {"order": 3}),
    ("nb-svm", {"order": 2}),
    ("label-hybrid", {"width": 16, "heads": 2, "layers": 1, "context": 40}),
]  # fmt: skip
each_case = pytest.mark.parametrize(("name", "settings"), CASES)
WORDS = ["aha", "bet", "cat", "dad", "egg", "fed", "gag", "hat", "ice", "jab"]
LABELED = [Example(a + b, "same" if a == b else "other") for a in WORDS for b in WORDS[:5]]


def tokenizer_of(corpus: ExampleCorpus) -> ExampleTokenizer:
    text = CharTokenizer.build(corpus.texts_of(corpus.examples), boundary=True)
    return ExampleTokenizer(text, corpus.form, corpus.symbols)


def make(name: str, settings: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(model_config({"name": name, **settings}), V).eval()
    if isinstance(model, CountBasedModel | LabelHybrid):
        rows = [
            np.array([0, *np.random.default_rng(n).integers(3, 11, 6), SEPARATOR, 1 + n % 2])
            for n in range(50)
        ]
        ids = np.concatenate([*rows, [0]]).astype(np.uint8)
        with torch.inference_mode(False):
            model.fit_counts(TokenDataset(ids, items=True, separator=SEPARATOR, predicts_end=False))
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter) / 5)
    return model


def some_tokens() -> torch.Tensor:
    """Rows whose separators are at different places."""
    torch.manual_seed(2)
    tokens = torch.randint(3, 11, (4, 18))
    tokens[:, 0] = 0
    for row, place in enumerate((5, 9, 5, 1)):
        tokens[row, place] = SEPARATOR
    return tokens


def test_all_are_covered() -> None:
    assert {name for name, _ in CASES} == set(NAMES)


@each_case
@pytest.mark.usefixtures("shape_checks")
@pytest.mark.parametrize("cuts", [[4, 12], [1, 2, 3, 17], [5, 6, 10], list(range(1, 18))])
@torch.inference_mode()
def test_the_state_continues(name: str, settings: dict, cuts: list[int]) -> None:
    model, tokens = make(name, settings), some_tokens()
    for rows in (tokens, tokens[[0, 2]]):
        whole, _ = model(rows)
        parts, state = [], None
        for piece in rows.tensor_split(cuts, dim=1):
            logits, state = model(piece, state)
            parts.append(logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=2e-5, rtol=1e-4)


@each_case
@torch.inference_mode()
def test_rows_are_independent_and_targets_causal(name: str, settings: dict) -> None:
    model, tokens = make(name, settings), some_tokens()
    whole, _ = model(tokens)
    for row in range(len(tokens)):
        torch.testing.assert_close(model(tokens[row : row + 1])[0][0], whole[row])
    changed = tokens.clone()
    changed[:, 14:] = 4
    torch.testing.assert_close(model(changed)[0][:, :14], whole[:, :14])
    # A change of the input changes the prediction at the separator.
    changed = tokens.clone()
    changed[1, 1:9] = 3
    assert not torch.allclose(model(changed)[0][1, 9], whole[1, 9])


@each_case
@torch.inference_mode()
def test_logits_of_inputs_are_uniform(name: str, settings: dict) -> None:
    logits, _ = make(name, settings)(some_tokens())
    assert not logits.isnan().any()
    assert (logits[0, :5] == logits[0, :5, :1]).all()


@each_case
@torch.inference_mode()
def test_empty_inputs_and_separators_only(name: str, settings: dict) -> None:
    model = make(name, settings)
    for row in ([0, SEPARATOR], [SEPARATOR], [SEPARATOR, 3], [0, SEPARATOR, SEPARATOR]):
        logits, _ = model(torch.tensor([row]))
        assert logits.isfinite().all()


def test_naive_bayes_is_bayes_rule() -> None:
    """One n-gram decides: its log-count ratio and the share of the label, by hand."""
    examples = [Example("a", "x")] * 3 + [Example("b", "y")] * 1 + [Example("a", "y")] * 2
    corpus = ExampleCorpus(name="x", examples=examples, target_form="label", sizes_of_split=(6,))
    tokenizer = tokenizer_of(corpus)
    (tokens,) = encode_examples(corpus, tokenizer, "seeded", 0).values()
    model = build_model(model_config({"name": "naive-bayes", "order": 1}), tokenizer.vocab_size)
    model.fit_counts(tokens)
    a = int(tokenizer.encode("a")[0])
    logits, _ = model(torch.tensor([[0, a, tokenizer.separator_id]]))
    x, y = (int(tokenizer.encode_target(label)[0]) for label in "xy")
    # With one added: of 9 + 4 counts of x and 9 + 4 of y, the edges are 4 and 4, "a" 4 and 3.
    expected = 2 * (math.log(4 / 3) - 0)
    assert math.isclose(float(logits[0, -1, x] - logits[0, -1, y]), expected, abs_tol=1e-5)


def test_nb_svm_beats_naive_bayes_on_pairs_of_words() -> None:
    corpus = ExampleCorpus(name="x", examples=LABELED * 4, target_form="label")
    tokenizer = tokenizer_of(corpus)
    tokens = encode_examples(corpus, tokenizer, "seeded", 0)["train"]
    losses = {}
    for name in ("naive-bayes", "nb-svm"):
        config = model_config({"name": name, "order": 3})
        model = build_model(config, tokenizer.vocab_size)
        model.fit_counts(tokens)
        batch = tokens.gather(tokens.windows(100))
        logits = model(batch.tokens_BT)[0].flatten(0, 1)
        targets = batch.targets_BT.flatten()
        losses[name] = F.cross_entropy(logits, targets, ignore_index=-1).item()
    assert losses["nb-svm"] < losses["naive-bayes"]


def labeled_tokens() -> tuple[TokenDataset, int]:
    corpus = ExampleCorpus(name="x", examples=LABELED, target_form="label")
    tokenizer = tokenizer_of(corpus)
    return encode_examples(corpus, tokenizer, "seeded", 0)["train"], tokenizer.vocab_size


@pytest.mark.parametrize("name", ["naive-bayes", "nb-svm"])
def test_cross_fitted_scores_are_those_of_a_model_of_the_other_folds(name: str) -> None:
    tokens, vocabulary = labeled_tokens()
    config = model_config({"name": name, "order": 1})
    model = build_model(config, vocabulary)
    scores = model.cross_fitted_scores(tokens, 3)
    start, length = tokens.segments()
    rest = [
        tokens.ids_N[s + 1 : s + n + 1] for i, (s, n) in enumerate(zip(start, length, strict=True))
        if i % 3
    ]  # fmt: skip
    others = dataclasses.replace(tokens, ids_N=np.concatenate([tokens.ids_N[:1], *rest]))
    model.fit_counts(others)
    batch = tokens.gather(tokens.windows(100)[::3])
    logits = model(batch.tokens_BT)[0]
    is_separator = batch.tokens_BT == vocabulary - 1
    expected = logits[is_separator][:, model.label_ids_L]
    # All single letters of the first fold are in the others, so both have the same n-grams.
    torch.testing.assert_close(scores[::3], expected, atol=1e-3, rtol=1e-3)


def test_a_label_hybrid_starts_at_its_counts_and_trains_on_cross_fitted_ones() -> None:
    tokens, vocabulary = labeled_tokens()
    settings = {"width": 16, "heads": 2, "layers": 1, "context": 5, "folds": 4}
    torch.manual_seed(0)
    hybrid = build_model(model_config({"name": "label-hybrid", **settings}), vocabulary)
    hybrid.fit_counts(tokens)
    batch = tokens.gather(tokens.windows(100)[np.array([5, 17, 2])])
    place = (batch.tokens_BT == vocabulary - 1).nonzero()[:, 1]
    rows = torch.arange(3)
    torch.testing.assert_close(hybrid(batch.tokens_BT)[0], hybrid.counts(batch.tokens_BT)[0])
    scores = hybrid.counts.cross_fitted_scores(tokens, 4)[[5, 17, 2]]
    trained = hybrid.training_logits(batch)[rows, place]
    torch.testing.assert_close(trained[:, hybrid.counts.label_ids_L], scores)
    # The encoder adds what it says of the last tokens that it can read, also in training.
    torch.nn.init.normal_(hybrid.network.head.weight)
    whole = hybrid(batch.tokens_BT)[0][rows, place] - hybrid.counts(batch.tokens_BT)[0][rows, place]
    trained = hybrid.training_logits(batch)[rows, place] - trained
    torch.testing.assert_close(trained, whole, atol=1e-5, rtol=1e-5)
    for row, end in enumerate(place.tolist()):
        seen = batch.tokens_BT[row : row + 1, max(0, end - 4) : end + 1]
        torch.testing.assert_close(hybrid.network(seen)[0][0, -1], whole[row], atol=1e-5, rtol=1e-5)
