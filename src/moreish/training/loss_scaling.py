"""Loss scaling for float16 (Micikevicius et al. 2018, "Mixed Precision Training", section 3.2).

Not `torch.amp.GradScaler`, which skips a step whose gradient overflows; here the step is repeated
with half the scale, so no batch is lost and a resumed run is exact (docs/dev-log.md).
"""

import math
from collections.abc import Callable

from torch import Tensor

from moreish.distributed import full_tensor
from moreish.training.state import TrainState

GROWTH_INTERVAL = 2000
"""Steps without overflow after which the loss scale is doubled."""

LossAndNorm = tuple[Tensor, Tensor]


def with_loss_scaling(state: TrainState, compute: Callable[[float], LossAndNorm]) -> LossAndNorm:
    """Compute a gradient with the largest loss scale that does not overflow.

    Args:
        state: holds the loss scale; changed in place.
        compute: computes the gradient with a given loss scale and unscales it.

    Returns:
        The loss and the norm of its unscaled gradient. They are not finite where even a scale of 1
        overflows, or the loss itself is not finite.
    """
    if state.steps_since_rescale >= GROWTH_INTERVAL:
        state.loss_scale, state.steps_since_rescale = 2 * state.loss_scale, 0
    while True:
        loss, norm = compute(state.loss_scale)
        is_finite = math.isfinite(full_tensor(norm).item())
        if is_finite or state.loss_scale <= 1 or not math.isfinite(loss.item()):
            state.steps_since_rescale += 1
            return loss, norm
        state.loss_scale, state.steps_since_rescale = state.loss_scale / 2, 0
