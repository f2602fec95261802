"""Training batches of problems that are drawn anew for every step."""

from dataclasses import replace

from moreish.data.sampler import BatchSampler
from moreish.data.token_dataset import Batch


class StreamSampler(BatchSampler):
    """Serves new problems at every step."""

    def batch(self, step: int) -> Batch:
        assert self.tokens.stream is not None
        first = step * self.batch_size
        tokens = self.tokens.stream.tokens(self.seed, first, self.batch_size)
        tokens = replace(tokens, masks_inputs=self.tokens.masks_inputs)
        return tokens.gather(tokens.windows(self.length, self.overlap))
