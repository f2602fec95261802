"""The probability of one text, token by token, and of what may follow it."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from moreish.data import TokenDataset
from moreish.errors import MoreishError
from moreish.evaluate.metrics import evaluate_losses, losses_after
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
        prefix: tokens that the model reads before the text; at least one.
        items: whether the text is an item, whose end is predicted too.

    Raises:
        MoreishError: `text` is empty, or has characters that are not in the vocabulary.
    """
    end = [tokenizer.boundary_id] if items else []
    ids = np.concatenate([tokenizer.encode(text), np.array(end, dtype=np.int64)])
    if len(ids) < 1:
        raise MoreishError("there is no text to evaluate")
    if len(prefix) > 1:
        losses = losses_after(model, prefix, ids)
    else:
        # Every token has at least half a context before it, where the text is long enough.
        stride = None if model.max_length is None else max(1, model.max_length // 2)
        all_ids = np.concatenate([prefix, ids]).astype(np.uint32)
        losses = evaluate_losses(model, TokenDataset(all_ids, items=False), stride)
    return [
        TokenSurprisal(id=int(token), token=tokenizer.label(int(token)), nats=float(nats))
        for token, nats in zip(ids, losses, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """A token that may come next, and its probability."""

    id: int
    token: str
    """Its text in a printable form; `·` is the end of an item."""
    probability: float


@torch.inference_mode()
def next_tokens(model: Model, tokenizer: Tokenizer, ids: Ids, n: int) -> list[NextToken]:
    """Return the `n` most likely tokens after `ids`, the most likely first.

    Of tokens that do not fit into the model's context, it reads the last ones.
    """
    ids_1T, state = model.skip_to_end(torch.from_numpy(ids.astype(np.int64))[None])
    logits_V = model(ids_1T, state)[0][0, -1].double()
    if tokenizer.unk_id is not None:  # it stands for text that cannot be written
        logits_V[tokenizer.unk_id] = -math.inf
    p_V = logits_V.softmax(dim=-1)
    return [
        NextToken(id=token, token=tokenizer.label(token), probability=float(p_V[token]))
        for token in p_V.topk(min(n, len(p_V))).indices.tolist()
    ]
