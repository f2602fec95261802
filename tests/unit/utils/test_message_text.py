"""Text on terminals."""

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from moreish.utils.text import WordWrapper


@given(
    st.lists(st.text(alphabet="ab \n", max_size=9), max_size=12),
    st.integers(min_value=1, max_value=9),
)
def test_words_are_wrapped_as_they_come(pieces: list[str], width: int) -> None:
    """Only line ends are added; a line is longer than the width only if it is one word."""
    wrapped = "".join(WordWrapper(width).pieces(pieces))
    assert wrapped.split() == "".join(pieces).split()
    assert wrapped.replace("\n", "").replace(" ", "") == "".join("".join(pieces).split())
    for line in wrapped.split("\n"):
        assert len(line) <= width or " " not in line.strip()


def test_words_are_wrapped_like_a_text() -> None:
    text = "She had packed her sandwiches before the sun was over the hill"
    lines = "".join(WordWrapper(20).pieces(text)).split("\n")
    assert [line.rstrip() for line in lines] == textwrap.wrap(text, 20)
