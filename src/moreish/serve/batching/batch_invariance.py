"""Steps of which each row has the same bits, whatever stands beside it."""

import torch
from torch import Tensor

from moreish.models import Model

TRIALS = 4
"""Steps that are compared to find out whether rows depend on each other."""


def transpose_weights(model: Model) -> Model:
    """`model` with the weights of its linear layers in memory input by input.

    On a CPU a product with eight or sixteen rows takes half the time so, and is the same for each
    row whatever the number of rows is, which it is not with the usual layout (docs/dev-log.md).
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.mT.contiguous().mT
    return model.eval()


@torch.inference_mode()
def min_invariant_batch(model: Model, slots: int, device: torch.device) -> int:
    """From how many rows on a step gives each row the same bits, whatever its place and the others.

    Found by trying, since it depends on the library that multiplies, on the machine, and on widths:
    rows are put in other orders, among fewer others, several times. 0 if there is no such number,
    and each text has to be written by itself.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randint(model.vocab_size, shape, generator=generator).to(device)

    trials = []
    for _ in range(TRIALS):
        states = [model(random(1, 1 + row % 5))[1] for row in range(slots)]
        token_R = random(slots)
        trials.append((token_R, states, model.decode_step(token_R, states)[0]))

    def agrees(size: int) -> bool:
        for first in {0, slots - size, (slots - size) // 2}:
            some = list(range(first, first + size))[::-1]
            for token_R, states, expected_RV in trials:
                found_RV, _ = model.decode_step(token_R[some], [states[row] for row in some])
                if not torch.equal(found_RV, expected_RV[some]):
                    return False
        return True

    least = 0
    for size in range(slots, 0, -1):
        if (size <= 16 or size % 4 == 0 or size == slots) and not agrees(size):
            break
        least = size
    return least
