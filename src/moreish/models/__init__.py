"""Language models behind one interface, `moreish.models.base.Model`.

A new model is one file and one entry in `REGISTRY`, at the end of this file.
"""

from moreish.models.base import CountBasedModel, Model, ModelConfig, State, map_state, select_rows
from moreish.models.bigram import Bigram
from moreish.models.bow import BagOfWords
from moreish.models.encoder import EncoderClassifier
from moreish.models.encoder_decoder import EncoderDecoder
from moreish.models.gpt import (
    GPT,
    ROTARY_BASE,
    Attention,
    FeedForward,
    GPTConfig,
    RopeTable,
    apply_rope,
    rope_table,
)
from moreish.models.hybrid import MAX_FOLD_TOKENS, Hybrid, HybridConfig
from moreish.models.interpolated import Mixture, NetworkWithCounts, NetworkWithCountsConfig
from moreish.models.label_hybrid import LabelHybrid
from moreish.models.lecture_gpt import LectureAttention, LectureGPT
from moreish.models.memory import LONGEST_CONTEXT, MAX_REACH, Reader, Votes
from moreish.models.mlp import MLP
from moreish.models.naive_bayes import NaiveBayes
from moreish.models.nb_svm import NBSVM
from moreish.models.ngram import TABLE_NAMES, KneserNey, NGram, count_ngrams, max_order
from moreish.models.registry import REGISTRY, build_model, model_class, model_config
from moreish.models.rnn import GRU, LSTM, RNN, Recurrent
from moreish.models.wavenet import WaveNet

REGISTRY |= {
    "ngram": NGram,
    "kneser-ney": KneserNey,
    "bigram": Bigram,
    "mlp": MLP,
    "bow": BagOfWords,
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
    "wavenet": WaveNet,
    "lecture-gpt": LectureGPT,
    "gpt": GPT,
    "mixture": Mixture,
    "hybrid": Hybrid,
    "naive-bayes": NaiveBayes,
    "nb-svm": NBSVM,
    "label-hybrid": LabelHybrid,
    "encoder": EncoderClassifier,
    "encoder-decoder": EncoderDecoder,
}
