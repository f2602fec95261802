"""What a model makes of one text, token by token."""

import math
from dataclasses import dataclass

import numpy as np

from moreish.data.tokens import Tokens
from moreish.errors import MoreishError
from moreish.evaluate.metrics import losses_of
from moreish.models.base import Model
from moreish.tokenizers.base import BOUNDARY, Tokenizer


@dataclass(frozen=True, kw_only=True)
class TokenSurprisal:
    """One token: its label, and minus its log-probability in nats."""

    token: str
    nats: float

    @property
    def probability(self) -> float:
        return math.exp(-self.nats)


def surprisal(
    model: Model, tokenizer: Tokenizer, text: str, *, items: bool
) -> list[TokenSurprisal]:
    """Every token of `text` with its surprisal given all before it.

    An item (`items`) is read between boundaries, its end included; of running text the first token
    is not scored where nothing comes before it.

    Raises:
        MoreishError: `text` has characters that the model never saw, or nothing to score.
    """
    ids = tokenizer.encode(text)
    edge = np.array([BOUNDARY])
    if items:
        ids = np.concatenate([edge, ids, edge])
    elif tokenizer.has_boundary:
        ids = np.concatenate([edge, ids])
    if len(ids) < 2:
        raise MoreishError("the text is too short: one character follows from nothing")
    # Half a context at the least before every token, where the text has it.
    stride = None if model.max_length is None else max(1, model.max_length // 2)
    losses = losses_of(model, Tokens(ids.astype(np.uint32), items=False), stride)
    return [
        TokenSurprisal(token=tokenizer.label(int(token)), nats=float(nats))
        for token, nats in zip(ids[1:], losses, strict=True)
    ]
