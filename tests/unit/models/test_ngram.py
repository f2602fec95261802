"""Counting: n-grams, add-k and Kneser-Ney, against dictionaries and the known values."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from conftest import item_tokens, split_tokens
from moreish.data.encode import encode_corpus
from moreish.data.text.corpus import Corpus
from moreish.data.token_dataset import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate.loss import mean_loss
from moreish.evaluate.metrics import evaluate_losses
from moreish.models import build_model, model_config
from moreish.models.ngram import counts as counting
from moreish.models.ngram import kneser_ney
from moreish.models.ngram.add_k import NGram, NGramConfig
from moreish.models.ngram.counts import Folds
from moreish.models.ngram.discounts import PRIORS, choose_prior, discounted_tables, discounts
from moreish.models.ngram.kneser_ney import KneserNey, KneserNeyConfig
from moreish.tokenizers.char import CharTokenizer
from support.model_contract import VOCABULARY, tokens_of

pytestmark = pytest.mark.usefixtures("shape_checks")


def text_tokens(length: int, seed: int) -> TokenDataset:
    return TokenDataset(tokens_of(1, length, seed)[0].numpy().astype("u1"), items=False)


def test_items_do_not_see_each_other_in_an_ngram() -> None:
    _, tokens = item_tokens(["ab", "ba", "ab"])
    model = build_model(model_config({"name": "ngram", "order": 3, "add_k": 0}), 3)
    model.fit_counts(tokens)
    start = torch.tensor([[0]])
    torch.testing.assert_close(
        F.softmax(model(start)[0][0, 0], -1), torch.tensor([0, 2 / 3, 1 / 3])
    )
    after_a, _ = model(torch.tensor([[0, 1]]))
    torch.testing.assert_close(F.softmax(after_a[0, 1], -1), torch.tensor([0.0, 0.0, 1.0]))


def test_an_ngram_equals_counting_by_hand() -> None:
    """Against dictionaries, for orders 1 to 5, on every position of a text."""
    ids = tokens_of(1, 300, seed=4)[0]
    for order in range(1, 6):
        for k in (0.0, 0.5):
            config = model_config({"name": "ngram", "order": order, "add_k": k})
            model = build_model(config, VOCABULARY)
            model.fit_counts(text_tokens(len(ids), seed=4))
            counts: dict[tuple[int, ...], list[int]] = {}
            padded = [0] * (order - 2) + ids.tolist()
            first = max(0, order - 2) + 1
            for i in range(first, len(padded)):
                context = tuple(padded[i - order + 1 : i])
                counts.setdefault(context, [0] * VOCABULARY)[padded[i]] += 1
            probe = tokens_of(1, 40, seed=5)
            got = model(probe)[0][0].exp()
            seen = [0] * (order - 2) + probe[0].tolist()
            for place in range(40):
                end = place + max(0, order - 2) + 1
                row = counts.get(tuple(seen[end - order + 1 : end]), [0] * VOCABULARY)
                total = sum(row) + k * VOCABULARY
                want = [(c + k) / total if total else 1 / VOCABULARY for c in row]
                torch.testing.assert_close(got[place], torch.tensor(want), atol=1e-6, rtol=0)


def test_orders_beyond_63_bits_are_refused() -> None:
    with pytest.raises(
        MoreishError, match="order=14 is too high for a vocabulary of 27: use 13 or less"
    ):
        build_model(model_config({"name": "ngram", "order": 14}), 27)


def test_chunked_counting_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    text = TokenDataset(random.integers(0, 5, 1000).astype(np.uint8), items=False)
    items = TokenDataset(np.append(0, random.integers(0, 5, 999)).astype(np.uint8), items=True)
    items = TokenDataset(np.append(items.ids_N, 0).astype(np.uint8), items=True)
    for tokens in (text, items):
        for order in (1, 2, 4, 9):
            whole = counting.count_ngrams(tokens, order, 5)
            assert whole[1].sum() == tokens.num_predictions
            parts = Folds(tokens, 2)
            half = counting.count_ngrams(tokens, order, 5, parts, 0)
            for chunk in (1, 7, 64):
                monkeypatch.setattr(counting, "CHUNK_POSITIONS", chunk)
                found = counting.count_ngrams(tokens, order, 5)
                found_half = counting.count_ngrams(tokens, order, 5, parts, 0)
                monkeypatch.undo()
                assert all(np.array_equal(a, b) for a, b in zip(whole, found, strict=True))
                assert all(np.array_equal(a, b) for a, b in zip(half, found_half, strict=True))


def kneser_ney_by_hand(
    ids: list[int], order: int, size: int, prior: float
) -> dict[tuple[int, ...], list[float]]:
    """Chen and Goodman's recursion with dictionaries: probabilities after each context seen.

    The prior on counts of counts has discounts of 1/2, 1 and 3/2.
    """
    padded = [0] * max(0, order - 2) + ids
    first = max(0, order - 2) + 1
    counts = Counter(tuple(padded[i - order + 1 : i + 1]) for i in range(first, len(padded)))
    tables = []
    for m in range(order, 0, -1):
        of = Counter(counts.values())
        pseudo = (2.0, 1.0, 2 / 3, 1 / 2)
        n = [max(1, of[k]) + prior * extra for k, extra in enumerate(pseudo, 1)]
        y = n[0] / (n[0] + 2 * n[1])
        d = [max(0.05, k + 1 - (k + 2) * y * n[k + 1] / n[k]) for k in range(3)]
        d = [min(k + 1, value) for k, value in enumerate(d)]
        table: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        for gram, number in counts.items():
            table[gram[:-1]][gram[-1]] = number
        tables.append((m, table, d))
        counts = Counter(gram[1:] for gram in counts)
    answer: dict[tuple[int, ...], list[float]] = {}

    def probability(context: tuple[int, ...], token: int) -> float:
        p = 1 / size
        for m, table, d in reversed(tables):
            here = table.get(context[len(context) - m + 1 :])
            if here is None:
                continue
            total = sum(here.values())
            gamma = sum(d[min(c, 3) - 1] for c in here.values()) / total
            c = here.get(token, 0)
            p = gamma * p + ((c - d[min(c, 3) - 1]) / total if c else 0)
        return p

    for i in range(first, len(padded) + 1):
        context = tuple(padded[i - order + 1 : i]) if order > 1 else ()
        answer[context] = [probability(context, token) for token in range(size)]
    return answer


@pytest.mark.parametrize("prior", [0.0, 10.0, 1e9])
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_equals_the_recursion_by_hand(order: int, prior: float) -> None:
    ids = tokens_of(1, 400, seed=4)[0]
    model = KneserNey(KneserNeyConfig(order=order, prior=prior), VOCABULARY)
    model.fit_counts(text_tokens(len(ids), seed=4))
    by_hand = kneser_ney_by_hand(ids.tolist(), order, VOCABULARY, prior)
    got = model(ids[None])[0][0].exp()
    padded = [0] * max(0, order - 2) + ids.tolist()
    for place in range(len(ids)):
        end = place + max(0, order - 2) + 1
        context = tuple(padded[end - order + 1 : end]) if order > 1 else ()
        torch.testing.assert_close(got[place], torch.tensor(by_hand[context]), atol=1e-6, rtol=1e-5)


def test_a_prior_alone_gives_discounts_of_half_the_count() -> None:
    counts_G = np.array([1, 1, 2, 3, 3, 3, 4])
    np.testing.assert_allclose(discounts(counts_G, 1e12), [0, 0.5, 1, 1.5], atol=1e-9)


def test_the_prior_is_the_one_with_the_lowest_loss_on_parts_left_out() -> None:
    """Against models that are fitted to all but one part and evaluated on it."""
    _, tokens = item_tokens(["fox", "dog", "wolf", "dog", "fox", "cat", "dot", "wolf"] * 4)
    size, order = int(tokens.ids_N.max()) + 1, 4
    parts = Folds(tokens, 10)
    batch = tokens.gather(tokens.windows(5))
    fold_BT = torch.from_numpy(
        parts.of(batch.start_B[:, None] + np.arange(batch.tokens_BT.shape[1]))
    )
    losses = {}
    for prior in PRIORS:
        model = KneserNey(KneserNeyConfig(order=order, prior=prior), size)
        model.fit_folds(parts)
        logits_BTV, _, _ = model.log_probs_by_order(batch.tokens_BT, fold_BT=fold_BT, orders=1)
        losses[prior] = float(mean_loss(logits_BTV[:, :, 0], batch.targets_BT))
    assert choose_prior(tokens, order, size) == min(losses, key=lambda prior: losses[prior])
    assert len({round(loss, 6) for loss in losses.values()}) > 1


def test_a_large_text_has_no_prior() -> None:
    tokens = text_tokens(30_000, seed=1)
    assert choose_prior(tokens, 3, VOCABULARY) == 0


def test_kneser_ney_sums_to_one_even_for_unseen_contexts() -> None:
    _, tokens = item_tokens(["emma", "ava", "olivia"])
    model = KneserNey(KneserNeyConfig(order=4), 27)
    model.fit_counts(tokens)
    shares = model(torch.randint(27, (4, 30)))[0].exp()
    torch.testing.assert_close(shares.sum(-1), torch.ones(4, 30))
    assert (shares > 0).all()


@pytest.mark.parametrize(("order", "items"), [(1, False), (2, True), (4, False), (5, True)])
@pytest.mark.parametrize("folds", [2, 3, 7])
def test_each_fold_is_looked_up_in_the_counts_of_all_others(
    order: int, items: bool, folds: int
) -> None:
    """Against counting the rest of the text alone, fold by fold."""
    if items:
        tokenizer, tokens = item_tokens(["anna", "anne", "nan", "an", "na", "anna", "hannah"] * 2)
        size = tokenizer.vocab_size
    else:
        tokens, size = text_tokens(150, seed=5), VOCABULARY
    config = KneserNeyConfig(order=order, start="unknown", prior=0)
    model = KneserNey(config, size)
    parts = Folds(tokens, folds)
    model.fit_folds(parts)
    batch = tokens.gather(tokens.windows(23))
    place_BT = batch.start_B[:, None] + np.arange(batch.tokens_BT.shape[1])
    fold_BT = torch.from_numpy(parts.of(place_BT))
    got, left, _ = model.log_probs_by_order(batch.tokens_BT, fold_BT=fold_BT)
    every_P = counting.ngrams(tokens, order, size)
    fold_P = parts.of(np.arange(len(every_P)))
    assert set(fold_P) <= set(range(folds)) and len(set(fold_P)) > 1
    for fold in range(folds):
        rest = KneserNey(config, size)
        kept = np.repeat(*counting.count_ngrams(tokens, order, size, parts, fold))
        assert sorted(every_P[fold_P != fold]) == list(kept)
        rest.set_tables([discounted_tables(tokens, order, size, parts, fold)])
        here_BT = (fold_BT == fold) & (batch.targets_BT >= 0)
        alone, backoff_alone, _ = rest.log_probs_by_order(batch.tokens_BT)
        torch.testing.assert_close(got[here_BT], alone[here_BT])
        torch.testing.assert_close(left[here_BT], backoff_alone[here_BT])


def test_folds_are_split_as_validation_is() -> None:
    """Folds are stretches of text, or items at random, each copy of an item by itself."""
    words = [f"{a}{b}{c}" for a in "abcdefg" for b in "hijklmn" for c in "opqrst"] * 2
    _, tokens = item_tokens(words)
    parts = Folds(tokens, 5)
    of_P = parts.of(np.arange(tokens.num_predictions))
    start_I, length_I = tokens.segments()
    of_items = [set(of_P[s : s + n]) for s, n in zip(start_I, length_I, strict=True)]
    assert all(len(one) == 1 for one in of_items)
    same = np.mean([a == b for a, b in zip(of_items[:343], of_items[343:], strict=False)])
    assert same < 0.3  # a fifth by chance
    shares = np.bincount(of_P) / len(of_P)
    assert len(shares) == 5 and shares.min() > 0.13
    assert len({min(one) for one in of_items[:6]}) > 1
    text = TokenDataset(np.zeros(102, dtype="u1"), items=False)
    of_text = Folds(text, 4).of(np.arange(101))
    assert (np.diff(of_text) >= 0).all() and set(np.bincount(of_text)) == {25, 26}


def test_folds_need_two_items() -> None:
    with pytest.raises(MoreishError, match="too small for the folds"):
        Folds(item_tokens(["anna"])[1], 20)
    two = Folds(item_tokens(["anna", "anna"])[1], 20)
    assert two.number == 2 and set(two.of(np.arange(10))) == {0, 1}


def test_a_window_within_an_item_has_an_unknown_context() -> None:
    """Before a window that begins in the middle of an item, tokens are unknown."""
    tokenizer, tokens = item_tokens(["banana", "bandana", "ananas", "nab"] * 3)
    model = KneserNey(KneserNeyConfig(order=4, start="boundary"), tokenizer.vocab_size)
    model.fit_counts(tokens)
    middle = torch.from_numpy(tokenizer.encode("anan"))[None]
    unknown = KneserNey(KneserNeyConfig(order=4, start="unknown"), tokenizer.vocab_size)
    unknown.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(middle)[0], unknown(middle)[0])
    whole = torch.cat([torch.zeros(1, 1, dtype=torch.long), middle], dim=1)
    assert not torch.allclose(model(whole)[0], unknown(whole)[0])


def test_a_vocabulary_of_one_token_has_a_maximum_order() -> None:
    assert counting.max_order(1) == counting.max_order(2)


def test_dense_rows_do_not_change_log_probabilities() -> None:
    """The log-probabilities of all orders are the same with and without rows made in advance."""
    ids = tokens_of(1, 400, seed=4)[0]
    model = KneserNey(KneserNeyConfig(order=4), VOCABULARY)
    model.fit_counts(text_tokens(len(ids), seed=4))
    every, left, _ = model.log_probs_by_order(ids[None])
    assert every.shape == (1, 400, 4, VOCABULARY)
    torch.testing.assert_close(every[:, :, 3], model(ids[None])[0])
    torch.testing.assert_close(every[:, :, 2:], model.log_probs_by_order(ids[None], orders=2)[0])
    torch.testing.assert_close(every.exp().sum(-1), torch.ones(1, 400, 4))
    assert ((left > 0) & (left <= 1)).all()
    model.dense_rows = model.dense_rows[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kneser_ney, "MAX_DENSE_TABLE", 0)
        torch.testing.assert_close(every, model.log_probs_by_order(ids[None])[0])
        model.dense_rows = []
        torch.testing.assert_close(every, model.log_probs_by_order(ids[None])[0])


def test_shorter_contexts_are_looked_up_where_the_context_is_unknown() -> None:
    tokens = text_tokens(400, seed=4)
    long = KneserNey(KneserNeyConfig(order=4, start="unknown"), VOCABULARY)
    long.fit_counts(tokens)
    some = tokens_of(2, 6, seed=9)
    got = long(some)[0]
    continued = long(some[:, 3:], long(some[:, :3])[1])[0]
    torch.testing.assert_close(got[:, 3:], continued)
    # With two tokens known, what counts are those of pairs before a third: the tables of order 3.
    padded = KneserNey(KneserNeyConfig(order=4), VOCABULARY)
    padded.load_state_dict(long.state_dict())
    torch.testing.assert_close(got[:, 3:], padded(some)[0][:, 3:])
    assert not torch.allclose(got[:, :2], padded(some)[0][:, :2])
    for m in (4, 3):  # nothing is known of contexts that are not there
        long.get_buffer(f"contexts_{m}").fill_(-5)
    torch.testing.assert_close(got[:, 0], long(some)[0][:, 0])


NAMES_VALUES = {2: 2.4528, 3: 2.2185, 4: 2.0560, 5: 1.9832, 6: 1.9740, 7: 1.9794}
SHAKESPEARE_VALUES = {2: 2.4835, 3: 2.0381, 4: 1.7191, 5: 1.5612, 6: 1.5227, 7: 1.5165, 8: 1.5192}


def test_kneser_ney_on_the_lectures_names(lecture_names: list[str]) -> None:
    check_losses(split_tokens(lecture_names, "lecture")[1], 27, NAMES_VALUES)


def test_kneser_ney_on_shakespeare(shakespeare: str) -> None:
    tokenizer = CharTokenizer.build([shakespeare], boundary=False)
    splits = encode_corpus(Corpus.of([shakespeare], "text"), tokenizer, "lecture", 42)
    check_losses(splits, 65, SHAKESPEARE_VALUES)


def check_losses(splits: dict[str, TokenDataset], size: int, losses: dict[int, float]) -> None:
    for order, expected in losses.items():
        model = KneserNey(KneserNeyConfig(order=order), size)
        model.fit_counts(splits["train"])
        loss = evaluate_losses(model, splits["val"]).mean(dtype=float)
        assert loss == pytest.approx(expected, abs=1.1e-4)


def test_the_order_suits_data_and_vocabulary() -> None:
    assert KneserNeyConfig().for_data(15, 27).order == 6
    assert KneserNeyConfig().for_data(None, 65).order == 7
    assert KneserNeyConfig().for_data(None, 6000).order == 5
    assert KneserNeyConfig(order=3).for_data(None, 65).order == 3
    assert counting.max_order(27) == 13


def test_the_fitted_mixture_weight_is_optimal() -> None:
    random = np.random.default_rng(1)
    model = build_model(
        model_config({"name": "mixture", "network": {"name": "bigram"}, "counts": {"order": 2}}), 5
    )
    network, counts = random.exponential(1, 500), random.exponential(1.1, 500)
    model.fit_weight(network.astype(np.float32), counts.astype(np.float32))

    def loss(w: float) -> float:
        return float(-np.log(w * np.exp(-network) + (1 - w) * np.exp(-counts)).mean())

    grid = [i / 1000 for i in range(1, 1000)]
    assert loss(float(model.weight)) <= min(map(loss, grid)) + 1e-6


def test_ngram_weights_with_the_names_of_version_0_1_0_load() -> None:
    config = NGramConfig(order=2)
    tokens = TokenDataset(np.array([0, 1, 2, 1, 0], dtype=np.uint8), items=True)
    model = NGram(config, 3)
    model.fit_counts(tokens)
    state = model.state_dict()
    loaded = NGram(config, 3)
    loaded.load_state_dict({"grams_G": state["ngrams_G"], "counts_G": state["counts_G"]})
    assert torch.equal(loaded.ngrams_G, model.ngrams_G)
    assert torch.equal(loaded.counts_G, model.counts_G)
