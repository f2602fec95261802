"""The probability of one text, token by token."""

import math
from dataclasses import dataclass

import numpy as np

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate.metrics import evaluate_losses
from moreish.models import Model
from moreish.tokenizers import Ids, Tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenSurprisal:
    """A token and its negative log-probability in nats."""

    id: int
    token: str
    nats: float

    @property
    def probability(self) -> float:
        return math.exp(-self.nats)


def surprisal(
    model: Model, tokenizer: Tokenizer, text: str, *, prefix: Ids, items: bool
) -> list[TokenSurprisal]:
    """Return the surprisal of every token of `text`, each conditioned on all tokens before it.

    Args:
        prefix: tokens that the model reads before the text.
        items: whether the text is an item, whose end is predicted too.

    Raises:
        MoreishError: `text` is empty, or has characters that are not in the vocabulary.
    """
    end = [tokenizer.boundary_id] if items else []
    ids = np.concatenate([prefix, tokenizer.encode(text), np.array(end, dtype=np.int64)])
    if len(ids) < 2:
        raise MoreishError("there is no text to evaluate")
    # Every token has at least half a context before it, where the text is long enough.
    stride = None if model.max_length is None else max(1, model.max_length // 2)
    losses = evaluate_losses(model, TokenDataset(ids.astype(np.uint32), items=False), stride)
    return [
        TokenSurprisal(id=int(token), token=tokenizer.label(int(token)), nats=float(nats))
        for token, nats in zip(ids[1:], losses, strict=True)
    ]
