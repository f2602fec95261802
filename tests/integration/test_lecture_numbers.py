"""The numbers that the makemore lectures state, from the lectures' own file (1: bigram, 2: MLP)."""

import math
import runpy
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import item_tokens, split_tokens
from moreish.data.token_dataset import Batch, TokenDataset
from moreish.evaluate.metrics import evaluate_losses, score
from moreish.generate.decode import generate
from moreish.generate.sampling import Sampling
from moreish.models import Model, build_model, model_config
from moreish.training.objectives import next_token_loss, with_weight_penalty


def counted(tokens: TokenDataset, add_k: float, vocabulary: int = 27) -> Model:
    model = build_model(model_config({"name": "ngram", "order": 2, "add_k": add_k}), vocabulary)
    model.fit_counts(tokens)
    return model


@pytest.fixture(scope="module")
def names(lecture_names: list[str]):
    return item_tokens(lecture_names)


def test_names(lecture_names: list[str]) -> None:
    assert len(lecture_names) == 32_033
    assert (min(map(len, lecture_names)), max(map(len, lecture_names))) == (2, 15)
    assert len(set(lecture_names)) == 29_494


def test_vocabulary(names) -> None:
    tokenizer, _ = names
    assert tokenizer.vocab_size == 27
    assert tokenizer.boundary_id == 0
    assert tokenizer.encode("az").tolist() == [1, 26]


def test_bigram_counts(names) -> None:
    tokenizer, tokens = names
    assert tokens.num_predictions == 228_146
    model = counted(tokens, 0)
    assert len(model.counts_G) == 627
    label = tokenizer.label
    table = {
        label(gram // 27) + label(gram % 27): count
        for gram, count in zip(model.ngrams_G.tolist(), model.counts_G.tolist(), strict=True)
    }
    assert Counter(table).most_common(2) == [("n·", 6_763), ("a·", 6_640)]
    assert (table["·m"], table["m·"]) == (2_538, 516)
    assert "jq" not in table


def test_first_words(lecture_names: list[str], names) -> None:
    tokenizer, all_tokens = names
    assert lecture_names[:3] == ["emma", "olivia", "ava"]
    first = TokenDataset(all_tokens.ids_N[:6], items=True)
    pairs = ["".join(map(tokenizer.label, pair)) for pair in pairwise(first.ids_N.tolist())]
    assert pairs == ["·e", "em", "mm", "ma", "a·"]
    three = TokenDataset(all_tokens.ids_N[: 3 + 1 + sum(map(len, lecture_names[:3]))], items=True)
    assert -evaluate_losses(counted(all_tokens, 0), three).sum() == pytest.approx(
        -38.7856, abs=1e-3
    )


@pytest.mark.parametrize(("add_k", "loss"), [(0, 2.4540), (1, 2.4546), (5, 2.4577)])
def test_count_bigram_loss(names, add_k: float, loss: float) -> None:
    tokenizer, tokens = names
    found = score(evaluate_losses(counted(tokens, add_k), tokens), tokens, tokenizer)
    assert found.loss == pytest.approx(loss, abs=1e-4)


def word_loss(model: Model, tokenizer, word: str) -> float:
    ids = np.array([0, *tokenizer.encode(word), 0], dtype=np.uint8)
    return float(evaluate_losses(model, TokenDataset(ids, items=True)).mean())


def test_andrej(names) -> None:
    tokenizer, tokens = names
    assert word_loss(counted(tokens, 0), tokenizer, "andrej") == pytest.approx(3.039, abs=1e-3)
    assert word_loss(counted(tokens, 0), tokenizer, "andrejq") == math.inf
    assert word_loss(counted(tokens, 1), tokenizer, "andrejq") == pytest.approx(3.483, abs=1e-3)


def test_uniform(names) -> None:
    tokenizer, tokens = names
    model = build_model(model_config({"name": "bigram"}), 27)
    found = score(evaluate_losses(model, tokens), tokens, tokenizer)
    assert found.loss == pytest.approx(3.2958, abs=1e-4)


def full_batch_descent(tokens: TokenDataset, steps: int, strength: float = 0.0) -> Model:
    """The lecture's training: one-hot inputs, full batch, learning rate 50."""
    model = build_model(model_config({"name": "bigram"}), 27)
    ids = torch.from_numpy(tokens.ids_N.astype(np.int64))
    batch = Batch(tokens_BT=ids[None, :-1], targets_BT=ids[None, 1:])
    objective = with_weight_penalty(next_token_loss, strength)
    optimizer = torch.optim.SGD(model.parameters(), lr=50)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(model, batch).backward()
        optimizer.step()
    return model


@pytest.mark.soak
def test_neural_bigram_approaches_the_counts_from_above(names) -> None:
    _, tokens = names
    after_200 = evaluate_losses(full_batch_descent(tokens, 200), tokens).mean()
    assert 2.4540 < after_200 < 2.47


def test_neural_bigram_at_its_optimum_is_the_count_table(names) -> None:
    """There the gradient vanishes; its probabilities and its samples are those of the counts."""
    _, tokens = names
    table = counted(tokens, 0)
    model = build_model(model_config({"name": "bigram"}), 27)
    every = torch.arange(27)[:, None]
    with torch.no_grad():
        model.table.weight.copy_(table(every)[0][:, 0].clamp(min=-40))
    ids = torch.from_numpy(tokens.ids_N.astype(np.int64))
    logits, _ = model(ids[None, :-1])
    loss = torch.nn.functional.cross_entropy(logits[0], ids[1:])
    (gradient,) = torch.autograd.grad(loss, model.table.weight)
    assert gradient.abs().max() < 1e-5
    torch.testing.assert_close(
        model(every)[0].softmax(-1), table(every)[0].softmax(-1), atol=1e-6, rtol=0
    )

    def drawn(which: Model) -> list[list[int]]:
        steps = generate(
            which, np.array([0]), streams=range(50), max_tokens=20, sampling=Sampling(), seed=0
        )
        return [token.tolist() for token, _ in steps]

    assert drawn(model) == drawn(table)


@pytest.mark.soak
def test_squared_weights_pull_toward_uniform(names) -> None:
    _, tokens = names
    losses = [
        evaluate_losses(full_batch_descent(tokens, 60, s), tokens).mean() for s in (0, 0.01, 1, 10)
    ]
    assert losses == sorted(losses)
    assert losses[1] < 2.5
    assert losses[3] > 3.1


def test_mlp_examples_and_sizes(names) -> None:
    _, tokens = names
    assert TokenDataset(tokens.ids_N[: 1 + 5 + 7 + 4 + 9 + 7], items=True).num_predictions == 32
    for embedding, hidden, parameters in ((2, 100, 3_481), (2, 300, 10_281), (10, 200, 11_897)):
        settings = {"name": "mlp", "context": 3, "embedding": embedding, "hidden": hidden}
        assert build_model(model_config(settings), 27).num_parameters() == parameters


def test_split_sizes(lecture_names: list[str]) -> None:
    _, splits = split_tokens(lecture_names, "lecture")
    assert [len(s.boundaries) - 1 for s in splits.values()] == [25_626, 3_203, 3_204]
    assert [s.num_predictions for s in splits.values()] == [182_625, 22_655, 22_866]


def test_careful_initialization_starts_at_the_uniform_loss(names) -> None:
    _, tokens = names
    first = TokenDataset(tokens.ids_N[:33], items=True)
    settings = {"name": "mlp", "context": 3, "embedding": 2, "hidden": 100}
    model = build_model(model_config(settings), 27)
    assert evaluate_losses(model, first).mean() == pytest.approx(3.2958, abs=0.005)
    # The lecture's first, careless weights are all drawn from a unit normal.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    assert evaluate_losses(model, first).mean() > 8


def test_shakespeare_split_and_tokens(shakespeare: str) -> None:
    from moreish.data.encode import encode_corpus
    from moreish.data.text.corpus import Corpus
    from moreish.tokenizers.char import CharTokenizer

    tokenizer = CharTokenizer.build([shakespeare], boundary=False)
    assert (len(shakespeare), tokenizer.vocab_size) == (1_115_394, 65)
    assert tokenizer.encode("hii there").tolist() == [46, 47, 47, 1, 58, 46, 43, 56, 43]
    corpus = Corpus.of([shakespeare], "text")
    splits = encode_corpus(corpus, tokenizer, "lecture", 0)
    assert [len(s.ids_N) for s in splits.values()] == [1_003_854, 111_540]
    assert splits["train"].ids_N[:9].tolist() == [18, 47, 56, 57, 58, 1, 15, 47, 58]


def test_the_built_in_names_have_their_bigram_loss() -> None:
    from moreish.data import catalog

    items = catalog.load_dataset("names").split("\n")
    assert len(items) == 32_178
    tokenizer, tokens = item_tokens(items)
    found = score(evaluate_losses(counted(tokens, 0), tokens), tokens, tokenizer)
    assert found.loss == pytest.approx(2.4543, abs=1e-4)


NUMBERS = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "lecture_numbers.py"))


def test_broadcasting_without_keepdim_normalizes_the_wrong_axis(names) -> None:
    _, tokens = names
    model = counted(tokens, 0)
    counts = torch.zeros(27 * 27)
    counts[model.ngrams_G] = model.counts_G.float()
    counts = counts.view(27, 27)
    assert (counts / counts.sum(1))[0].sum().item() == pytest.approx(7.0225, abs=1e-4)
    table = {".a": (0, 1), "aj": (1, 10), "bh": (2, 8), "bg": (2, 7), "qr": (17, 18), "dz": (4, 26)}
    found = [int(counts[pair]) for pair in table.values()]
    assert found == [4410, 175, 41, 0, 1, 1]


def test_the_neural_bigram_on_emma_with_the_lectures_generator() -> None:
    losses = NUMBERS["neural_bigram_on_emma"]
    assert losses(2147483647) == pytest.approx([3.7693, 3.7492, 3.7292], abs=1e-4)
    assert losses(2147483648)[0] == pytest.approx(3.3771, abs=1e-4)


def test_the_mlp_with_the_lectures_generator_overfits_32_examples() -> None:
    words = ["emma", "olivia", "ava", "isabella", "sophia"]
    first, last, wrong = NUMBERS["overfit_32_examples"](words)
    assert first == pytest.approx(17.7697, abs=1e-3)
    assert last == pytest.approx(0.2561, abs=1e-3)
    assert wrong == 4


def test_the_gpt_lectures_untrained_bigram_and_toy_products(shakespeare: str) -> None:
    place = {character: i for i, character in enumerate(sorted(set(shakespeare)))}
    ids = torch.tensor([place[character] for character in shakespeare[:1_003_854]])
    assert NUMBERS["untrained_bigram"](ids) == pytest.approx(4.8786, abs=1e-4)
    assert NUMBERS["toy_products"]() == [[14, 16], [8, 11], [4, 5.5]]
