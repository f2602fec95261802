"""Classification by counting: naive Bayes on n-grams (Wang and Manning 2012, "Baselines and
Bigrams", section 2.1).

B batch, R rows of it with a separator, T positions, S positions seen, E examples, P pairs of an
example and an n-gram, G n-grams of an input, F distinct n-grams of the training split, L labels,
V vocabulary.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.models.base import CountBasedModel, Logits, ModelConfig, State, Tokens
from moreish.tokenizers import ExampleTokenizer, Ids, Tokenizer

UNBOUNDED = 1 << 40
"""Context of a model that reads whole inputs, however long."""

FLOOR = -20.0
"""Logit of tokens that are no label of the training split, in nats below the sum of the labels."""

MAX_WEIGHTS = 32_000_000
"""Largest number of n-grams times labels, of which NB-SVM keeps some thirty arrays; rare n-grams
are left out beyond it."""


class NaiveBayesConfig(ModelConfig):
    name: Literal["naive-bayes"] = "naive-bayes"
    order: int = Field(2, ge=1, le=8)
    """Length of the longest n-grams of tokens that are counted."""
    word_order: int = Field(0, ge=0, le=5)
    """Length of the longest n-grams of words that are counted too, where tokens are characters; 0:
    none."""
    letter_ids: list[int] | None = None
    """The tokens that words consist of; by default letters, digits and the apostrophe."""
    space_ids: list[int] | None = None
    """The tokens between words that are in none; by default white space."""
    smoothing: float = Field(1.0, ge=1e-6, le=1e6)
    """Number that is added to each count."""
    outputs: int | None = Field(None, ge=1, le=1 << 24)
    """Number of tokens that can be predicted, the first ones of the vocabulary: the labels."""

    def for_tokenizer(self, tokenizer: Tokenizer) -> ModelConfig:
        """Raises MoreishError for words of tokens that are no characters."""
        config = super().for_tokenizer(tokenizer)
        if not self.word_order or self.letter_ids is not None:
            return config
        first = tokenizer.first_text if isinstance(tokenizer, ExampleTokenizer) else 0
        texts = [token.decode("utf-8", "replace") for token in tokenizer.tokens]
        letters = [
            i for i, text in enumerate(texts) if i >= first and (text == "'" or text.isalnum())
        ]
        if any(len(text) > 1 for text in texts[first:]):
            raise MoreishError(
                f"model.word_order={self.word_order} counts words of characters: use --tokenizer "
                "char, or leave it out"
            )
        spaces = [i for i, text in enumerate(texts) if text.isspace()]
        return config.with_defaults(letter_ids=letters, space_ids=spaces)


WORD_MULTIPLIER = 0x2545F4914F6CDD1D
"""Odd factor of the hash of a word in that of an n-gram of words."""

with np.errstate(over="ignore"):
    WORD_POWERS = np.cumprod(np.full(64, 0x9E3779B97F4A7C15, dtype=np.uint64))
"""Factors of the characters of a word in its hash."""


@dataclass(frozen=True)
class NGramSets:
    """Which n-grams each of some examples has."""

    example_P: Ids
    feature_P: Ids
    """The number of an example and that of an n-gram that it has, by example."""
    label_E: Ids
    """The number of the label of each example."""
    features: int
    labels: int

    @cached_property
    def joint_counts(self) -> NDArray[np.float32]:
        """The number of examples of each label that have an n-gram, (F, L)."""
        both_P = self.feature_P * self.labels + self.label_E[self.example_P]
        counts = np.bincount(both_P, minlength=self.features * self.labels)
        return counts.reshape(self.features, self.labels).astype(np.float32)

    @cached_property
    def has_ngram(self) -> Tensor:
        """Which n-grams each example has, a sparse matrix (E, F) of zeros and ones."""
        start_E = np.searchsorted(self.example_P, np.arange(len(self.label_E) + 1))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse")  # that they are in beta
            return torch.sparse_csr_tensor(
                torch.from_numpy(start_E),
                torch.from_numpy(self.feature_P),
                torch.ones(len(self.feature_P)),
                size=(len(self.label_E), self.features),
                check_invariants=False,
            )

    def where(self, chosen_E: NDArray[np.bool_]) -> "NGramSets":
        """Return some of the examples, with the same numbers of n-grams and labels."""
        kept_P = chosen_E[self.example_P]
        number_E = np.cumsum(chosen_E) - 1
        return NGramSets(
            number_E[self.example_P[kept_P]],
            self.feature_P[kept_P],
            self.label_E[chosen_E],
            self.features,
            self.labels,
        )


class NaiveBayes(CountBasedModel):
    """The log-probability of each label given which n-grams occur in an input, each counted once.

    It predicts at the separator; its logits elsewhere are equal for all tokens.
    """

    Config: ClassVar[type[ModelConfig]] = NaiveBayesConfig
    needs_examples = needs_labels = state_grows = True
    ngrams_F: Tensor
    weight_FL: Tensor
    bias_L: Tensor
    label_ids_L: Tensor

    def __init__(self, config: NaiveBayesConfig, vocab_size: int) -> None:
        super().__init__(vocab_size, order=config.order)
        self.config, self.context = config, UNBOUNDED
        self.separator, self.outputs = vocab_size - 1, config.outputs or vocab_size
        every_V = np.arange(vocab_size)
        self.is_letter_V = np.isin(every_V, config.letter_ids or [])
        self.is_space_V = np.isin(every_V, config.space_ids or [])
        self.register_buffer("ngrams_F", torch.zeros(0, dtype=torch.long))
        self.register_buffer("weight_FL", torch.zeros(0, 0))
        self.register_buffer("bias_L", torch.zeros(0))
        self.register_buffer("label_ids_L", torch.zeros(0, dtype=torch.long))

    def num_counts(self) -> int:
        return self.weight_FL.numel()

    # --- fitting ---

    def fit_counts(self, tokens: TokenDataset) -> None:
        examples, ngrams_F, label_ids_L = self._read(tokens)
        self.ngrams_F = torch.from_numpy(ngrams_F)
        self.label_ids_L = torch.from_numpy(label_ids_L)
        self.weight_FL, self.bias_L = self._weights_of(examples)

    def cross_fitted_scores(self, tokens: TokenDataset, folds: int) -> Float[Tensor, "E L"]:
        """Return what `label_scores` returns for each example, but by a model that is fitted to the
        examples of all other folds."""
        examples, _, labels = self._read(tokens)
        fold_E = np.arange(len(examples.label_E)) % folds
        scores_EL = torch.empty(len(fold_E), len(labels))
        for fold in range(folds):
            others, own = examples.where(fold_E != fold), examples.where(fold_E == fold)
            weight_FL, bias_L = self._weights_of(others)
            weight_FL[torch.from_numpy(others.joint_counts.sum(1) == 0)] = (
                0  # unknown to this model
            )
            scores_EL[torch.from_numpy(fold_E == fold)] = own.has_ngram @ weight_FL + bias_L
        return scores_EL

    def _read(self, tokens: TokenDataset) -> tuple["NGramSets", Ids, Ids]:
        """Return the n-grams of each example, which ones they are, (F,), and the tokens of the
        labels, (L,)."""
        example_P, ngrams_P = self._ngrams_of(tokens)
        label_E = tokens.ids_N[tokens.separators + 1].astype(np.int64)
        label_ids_L, label_E = np.unique(label_E, return_inverse=True)
        ngrams_F, feature_P, count_F = np.unique(ngrams_P, return_inverse=True, return_counts=True)
        ngrams_F, feature_P, kept_P = _drop_rare(ngrams_F, feature_P, count_F, len(label_ids_L))
        # Each n-gram counts once for each example.
        pairs = np.unique(example_P[kept_P] * max(1, len(ngrams_F)) + feature_P)
        example_P, feature_P = np.divmod(pairs, max(1, len(ngrams_F)))
        sets = NGramSets(example_P, feature_P, label_E, len(ngrams_F), len(label_ids_L))
        return sets, ngrams_F, label_ids_L

    def _weights_of(
        self, examples: "NGramSets"
    ) -> tuple[Float[Tensor, "F L"], Float[Tensor, " L"]]:
        """Return the weight of each n-gram for each label, log-count ratios, and the log of the
        share of each label."""
        count_L = np.bincount(examples.label_E, minlength=examples.labels)
        with np.errstate(divide="ignore"):  # a label that is in another fold only
            bias_L = np.maximum(np.log(count_L / count_L.sum()), FLOOR).astype(np.float32)
        ratio_FL = log_count_ratios(examples.joint_counts, self.config.smoothing)
        return torch.from_numpy(ratio_FL), torch.from_numpy(bias_L)

    def _ngrams_of(self, tokens: TokenDataset) -> tuple[Ids, Ids]:
        """Return the example and the code of every n-gram of every input, (P,) each."""
        length_E = tokens.separators - tokens.boundaries[:-1] + 1
        skipped_E = tokens.boundaries[:-1] - (np.cumsum(length_E) - length_E)
        place_N = np.arange(length_E.sum()) + np.repeat(skipped_E, length_E)
        return self.ngram_codes(tokens.ids_N[place_N].astype(np.int64), length_E)

    def ngram_codes(self, ids_N: Ids, length_E: Ids) -> tuple[Ids, Ids]:
        """Return the example and the code of every n-gram of some inputs, (P,) each.

        Args:
            ids_N: the tokens of all inputs, each from its boundary to its separator, which belong
                to it.
            length_E: the number of tokens of each.
        """
        example_N = np.repeat(np.arange(len(length_E)), length_E)
        examples, codes = _ngrams(example_N, ids_N + 1, self.order, self.vocab_size)
        if self.config.word_order:
            words = _words(example_N, ids_N, self.is_letter_V, self.is_space_V)
            more_examples, more_codes = _ngrams(*words, self.config.word_order, WORD_MULTIPLIER)
            examples, codes = examples + more_examples, codes + more_codes
        return np.concatenate(examples), np.concatenate(codes)

    # --- predicting ---

    def forward(self, tokens_BT: Tokens, state: State = None) -> tuple[Logits, State]:
        new = tokens_BT.shape[1]
        seen_BS = tokens_BT if state is None else torch.cat([state, tokens_BT], dim=1)
        logits_BTV = torch.zeros(len(seen_BS), new, self.outputs, device=seen_BS.device)
        first = seen_BS.shape[1] - new
        row_R, place_R = (seen_BS[:, first:] == self.separator).nonzero(as_tuple=True)
        if len(row_R):
            scores_RL = self.label_scores(seen_BS[row_R], place_R + first)
            logits_BTV[row_R, place_R] = self.label_logits(scores_RL)
        return logits_BTV, seen_BS

    def label_logits(self, scores_RL: Float[Tensor, "R L"]) -> Float[Tensor, "R V"]:
        """Return the logits of all tokens, given those of the labels of the training split."""
        floor_R1 = scores_RL.logsumexp(1, keepdim=True) + FLOOR
        logits_RV = floor_R1.repeat(1, self.outputs)
        logits_RV[:, self.label_ids_L] = scores_RL
        return logits_RV

    def label_scores(
        self, seen_RS: Int[Tensor, "R S"], place_R: Int[Tensor, " R"]
    ) -> Float[Tensor, "R L"]:
        """Return the logit of each label of the training split for inputs that end at a place."""
        length_R = place_R.cpu().numpy() + 1
        rows = zip(seen_RS.cpu().numpy(), length_R, strict=True)
        example_P, code_P = self.ngram_codes(np.concatenate([r[:n] for r, n in rows]), length_R)
        ngrams_F = self.ngrams_F.cpu().numpy()
        feature_P = np.searchsorted(ngrams_F, code_P)
        feature_P = np.minimum(feature_P, max(0, len(ngrams_F) - 1))
        is_known_P = np.zeros(len(code_P), dtype=bool)
        if len(ngrams_F):
            is_known_P = ngrams_F[feature_P] == code_P
        # Each n-gram counts once for each input.
        pairs = np.unique(example_P[is_known_P] * max(1, len(ngrams_F)) + feature_P[is_known_P])
        row_Q, feature_Q = np.divmod(pairs, max(1, len(ngrams_F)))
        scores_RL = self.bias_L.repeat(len(seen_RS), 1)
        device = scores_RL.device
        weight_QL = self.weight_FL[torch.from_numpy(feature_Q).to(device)]
        return scores_RL.index_add_(0, torch.from_numpy(row_Q).to(device), weight_QL)


def _ngrams(
    example_N: Ids, item_N: Ids, order: int, multiplier: int
) -> tuple[list[Ids], list[Ids]]:
    """Return the examples and the codes of the n-grams of some items, such as tokens, for each
    length. Codes are numbers in base `multiplier`, or hashes where those are too large."""
    examples, codes, code_N = [], [], np.zeros(len(item_N), np.int64)
    for length in range(1, order + 1):
        code_N = code_N[: len(item_N) - length + 1] * multiplier + item_N[length - 1 :]
        inside_N = example_N[: len(code_N)] == example_N[length - 1 :]
        examples.append(example_N[: len(code_N)][inside_N])
        codes.append(code_N[inside_N])
    return examples, codes


def _words(
    example_N: Ids, ids_N: Ids, is_letter_V: NDArray[np.bool_], is_space_V: NDArray[np.bool_]
) -> tuple[Ids, Ids]:
    """Return the example and a hash of each word: letters side by side, or another character."""
    is_letter_N, is_space_N = is_letter_V[ids_N], is_space_V[ids_N]
    is_first_N = ~is_letter_N
    is_first_N[:1] = True
    is_first_N[1:] |= ~is_letter_N[:-1] | (example_N[1:] != example_N[:-1])
    start_W = np.flatnonzero(is_first_N)
    place_N = np.arange(len(ids_N)) - np.repeat(start_W, np.diff(start_W, append=len(ids_N)))
    factors_N = WORD_POWERS[np.minimum(place_N, len(WORD_POWERS) - 1)]
    hash_W = np.add.reduceat((ids_N.astype(np.uint64) + np.uint64(1)) * factors_N, start_W)
    is_word_W = ~is_space_N[start_W]
    return example_N[start_W][is_word_W], hash_W[is_word_W].view(np.int64)


def _drop_rare(
    ngrams_F: Ids, feature_P: Ids, count_F: Ids, labels: int
) -> tuple[Ids, Ids, NDArray[np.bool_]]:
    """Leave out the rarest n-grams where there are too many of them for this number of labels.

    Returns:
        The n-grams that are kept, their numbers where they occur, and where that is.
    """
    kept_F = np.ones(len(ngrams_F), dtype=bool)
    minimum = 1
    while kept_F.sum() * labels > MAX_WEIGHTS:
        minimum += 1
        kept_F = count_F >= minimum
    kept_P = kept_F[feature_P]
    return ngrams_F[kept_F], (np.cumsum(kept_F) - 1)[feature_P[kept_P]], kept_P


def log_count_ratios(
    joint_FL: NDArray[np.float32], smoothing: float, without: int | None = None
) -> NDArray[np.float32]:
    """Return the log of how much more probable each n-gram is with a label than with all others
    (equation 2 of the paper, for several labels).

    Args:
        joint_FL: number of examples of each label that have an n-gram.
        smoothing: added to each count.
        without: a label of which one example that has the n-gram is left out of the counts.
    """
    total_F1, sum_L = joint_FL.sum(1, keepdims=True), joint_FL.sum(0)
    size = smoothing * len(joint_FL)
    rest_FL = total_F1 - joint_FL
    norms_2L = np.log(np.stack([sum_L, sum_L.sum() - sum_L]) + size)
    if without is not None:
        joint_FL, rest_FL = joint_FL.copy(), rest_FL.copy()
        others = np.arange(joint_FL.shape[1]) != without
        joint_FL[:, without] = np.maximum(joint_FL[:, without] - 1, 0)
        rest_FL[:, others] = np.maximum(rest_FL[:, others] - 1, 0)
    ratio_FL = np.log(joint_FL + smoothing) - np.log(rest_FL + smoothing)
    return ratio_FL - (norms_2L[0] - norms_2L[1])
