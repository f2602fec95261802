"""Classification by counting: naive Bayes on n-grams (Wang and Manning 2012, "Baselines and
Bigrams", section 2.1).

B batch, R rows of it with a separator, T positions, S positions seen, E examples, P pairs of an
example and an n-gram, G n-grams of an input, F distinct n-grams of the training split, L labels,
V vocabulary.
"""

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
from moreish.models.example_ngrams import (
    WORD_MULTIPLIER,
    NGramSets,
    log_count_ratios,
    ngram_codes,
    word_hashes,
)
from moreish.tokenizers import ExampleTokenizer, Ids, Tokenizer

UNBOUNDED = 1 << 40
"""Context of a model that reads whole inputs, however long."""

FLOOR = -20.0
"""Logit of tokens that are no label of the training split, in nats below the sum of the labels."""

MAX_WEIGHTS = 8_000_000
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

    def _read(self, tokens: TokenDataset) -> tuple[NGramSets, Ids, Ids]:
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

    def _weights_of(self, examples: NGramSets) -> tuple[Float[Tensor, "F L"], Float[Tensor, " L"]]:
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
        return self.codes(tokens.ids_N[place_N].astype(np.int64), length_E)

    def codes(self, ids_N: Ids, length_E: Ids) -> tuple[Ids, Ids]:
        """Return the example and the code of every n-gram of some inputs, (P,) each.

        Args:
            ids_N: the tokens of all inputs, each from its boundary to its separator, which belong
                to it.
            length_E: the number of tokens of each.
        """
        example_N = np.repeat(np.arange(len(length_E)), length_E)
        examples, codes = ngram_codes(example_N, ids_N + 1, self.order, self.vocab_size)
        if self.config.word_order:
            words = word_hashes(example_N, ids_N, self.is_letter_V, self.is_space_V)
            more_examples, more_codes = ngram_codes(*words, self.config.word_order, WORD_MULTIPLIER)
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
        example_P, code_P = self.codes(np.concatenate([r[:n] for r, n in rows]), length_R)
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
