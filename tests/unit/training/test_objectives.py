"""What training minimizes."""

import torch
from torch.nn import functional as F

from moreish.data import Batch
from moreish.models import build_model, model_config
from moreish.training import next_token_loss, training_objective


def test_smoothed_labels_are_those_of_pytorch() -> None:
    torch.manual_seed(0)
    model = build_model(model_config({"name": "gpt", "layers": 1, "heads": 1, "width": 8}), 11)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randint(11, (3, 9))
    targets = tokens.roll(-1, 1)
    targets[:, :4] = -1
    batch = Batch(tokens_BT=tokens, targets_BT=targets)
    logits = model(tokens)[0].flatten(0, 1)
    expected = F.cross_entropy(logits, targets.flatten(), ignore_index=-1, label_smoothing=0.2)
    torch.testing.assert_close(training_objective(0.2, 0.0)(model, batch), expected)
    assert training_objective(0.0, 0.0) is next_token_loss
