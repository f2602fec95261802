"""Decoding steps in which each row has the same bits, whatever the other rows are.

Shape suffixes: R rows of a step, V vocabulary.
"""

import torch
from torch import Tensor

from moreish.models import Model

TRIALS = 4
"""Steps with different inputs that are compared."""

PERMUTATIONS = 4
"""Random selections and orders of the rows for each step and number of rows."""

FULL_PERMUTATIONS = 16
"""The same for steps with all rows: where most models that are not invariant show it."""


def transpose_weights(model: Model) -> Model:
    """Store the weights of linear layers input by input, and set the model to evaluation mode.

    On a CPU a product with eight or sixteen rows takes half the time with this layout, and each row
    has the same bits whatever the number of rows is, which does not hold for the usual layout
    (docs/dev-log.md).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.mT.contiguous().mT
    return model.eval()


@torch.inference_mode()
def min_invariant_batch(model: Model, slots: int, device: torch.device) -> int:
    """Find the smallest number of rows from which on each row of a decoding step has the same bits,
    whatever its position and the other rows are.

    It depends on the matrix library, the machine and the model's widths, so it is measured: a step
    is repeated with some of its rows in another order.

    Args:
        model: the model, after `transpose_weights`.
        slots: the largest number of rows.
        device: where the model is.

    Returns:
        The number of rows; 0 if there is none, so that each sequence needs a step of its own.
    """
    generator = torch.Generator().manual_seed(0)

    def random_tokens(*shape: int) -> Tensor:
        return torch.randint(model.vocab_size, shape, generator=generator).to(device)

    trials = []
    for _ in range(TRIALS):
        states = [model(random_tokens(1, 1 + row % 5))[1] for row in range(slots)]
        token_R = random_tokens(slots)
        trials.append((token_R, states, model.decode_step(token_R, states)[0]))

    def is_invariant(size: int) -> bool:
        for _ in range(FULL_PERMUTATIONS if size == slots else PERMUTATIONS):
            for token_R, states, expected_RV in trials:
                rows = torch.randperm(slots, generator=generator)[:size].tolist()
                found_RV, _ = model.decode_step(token_R[rows], [states[row] for row in rows])
                if not torch.equal(found_RV, expected_RV[rows]):
                    return False
        return True

    smallest = 0
    for size in range(slots, 0, -1):
        if (size <= 16 or size % 4 == 0 or size == slots) and not is_invariant(size):
            break
        smallest = size
    return smallest
