"""From logits to text: sampling, decoding and constrained decoding."""

from moreish.generate.constrained import (
    Automaton,
    CompileLimits,
    ConstrainedDecoder,
    Constraint,
    compile_constraint,
    parse_length,
    resample,
)
from moreish.generate.decode import limit_threads
from moreish.generate.detokenizer import StreamDetokenizer
from moreish.generate.predict import Search
from moreish.generate.predictor import Prediction, Predictor
from moreish.generate.sampling import (
    NOISE_BLOCK,
    RepetitionCounter,
    Sampling,
    sample_tokens,
    sampling_probabilities,
    uniform_noise,
)
from moreish.generate.writer import (
    TextGenerator,
    TooFewTexts,
    is_pool_complete,
    max_pool,
)
