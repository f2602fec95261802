"""From logits to losses: the only place where losses are computed.

B batch, T positions, V vocabulary.
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from moreish.data import IGNORE_INDEX


def token_losses(
    logits_BTV: Float[Tensor, "B T V"], targets_BT: Int[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Return the negative log-probability of each target, in nats; 0 where it is `IGNORE_INDEX`."""
    return F.cross_entropy(
        logits_BTV.flatten(0, 1).float(),
        targets_BT.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    ).unflatten(0, targets_BT.shape)


def mean_loss(
    logits_BTV: Float[Tensor, "B T V"],
    targets_BT: Int[Tensor, "B T"],
    counts_BT: Int[Tensor, "B T"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the mean loss in nats per token, weighted by `counts_BT` if given.

    Args:
        label_smoothing: share of the target's probability that goes to all tokens alike, without
            weights (Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7).
    """
    if counts_BT is not None:
        return (token_losses(logits_BTV, targets_BT) * counts_BT).sum() / counts_BT.sum()
    return F.cross_entropy(
        logits_BTV.flatten(0, 1).float(),
        targets_BT.flatten(),
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
    )
