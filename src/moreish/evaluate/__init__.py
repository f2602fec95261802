"""Exact losses of whole splits, and measurements of texts, tokenizers and models."""

from moreish.evaluate.adaptive import AdaptiveModel, adaptive_losses
from moreish.evaluate.baselines import pair_loss, uniform_loss
from moreish.evaluate.coding import coded_bytes
from moreish.evaluate.inspect import (
    attention_maps,
    bigram_counts,
    bigram_probabilities,
    context_counts,
    find_transformer,
    principal_components,
    token_embedding,
    tokens_by_frequency,
)
from moreish.evaluate.loss import mean_loss
from moreish.evaluate.metrics import (
    STDERR_BLOCK,
    Score,
    batch_losses,
    evaluate_losses,
    evaluation_batches,
    evaluation_windows,
    format_bits,
    perplexity,
    running_loss,
    running_losses,
    score,
)
from moreish.evaluate.novelty import NearestItemIndex, OverlapIndex, TextNovelty, TrainingIndex
from moreish.evaluate.predictions import (
    confusion,
    edit_distance,
    reliability,
    score_labels,
    score_texts,
)
from moreish.evaluate.surprisal import NextToken, TokenSurprisal, next_tokens, surprisal
from moreish.evaluate.tokenization import Token, TokenizerStats, measure_tokenizer, tokenize_text
