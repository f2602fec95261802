"""Guess whether lines are the items of a list, or belong together as running text."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

MAX_GUESS_LINES = 10_000
"""Lines at the beginning of each text that are looked at."""

MAX_GUESS_LENGTH = 2_000
"""Characters of a line that are looked at."""

MAX_BLANK_LINES = 3
"""Blank lines that any list may have, and a larger one up to a twentieth of its lines."""

MAX_ITEM_LENGTH = 250
"""Characters of the longest items, except for a twentieth of them."""

MIN_LIST_FILE = 50
"""Lines of a file on average, if a list is spread over several files."""

TEXT_SUFFIX = re.compile(
    r"\.(abc|bib|cc?|cfg|cpp|cs|css|diff|go|hp?p?|html?|ini|ipynb|java|jsx?|json|kt|log|lua|m|patch|"
    r"pgn|php|pl|ps1|py|r|rb|rs|rst|scala|sh|sql|srt|sub|swift|tex|toml|tsx?|vtt|xml|ya?ml)$",
    re.IGNORECASE,
)
"""Ends of the names of files whose lines belong together."""

MIN_NUMBERED_LENGTH = 60
"""Median length of numbered lines from which they are paragraphs, in characters."""

SENTENCE_END = re.compile(r"[.!?…。！？؟][\"'»”’)\]」*]*$")
SENTENCE_BREAK = re.compile(r"[.!?…。！？؟][\"'»”’)\]」*]*\s+\S")
CONTINUED = tuple(",;:、，—–{(\\&|")
GREEK_QUESTION = re.compile(r"(?<=[\u0370-\u03ff\u1f00-\u1fff]);$")
SPEAKER = re.compile(  # of plays, interviews and chat logs: [12:30] Anna: …, <user> …
    r"(?:[\[(<]?(?:\d{1,4}[-./]\d{1,2}[-./]\d{1,4},?\s+)?\d{1,2}[:.]\d{2}(?:[:.]\d{2})?[\])>]?"
    r"[ \t]*(?:[-–][ \t]*)?)?[<*]?(\w[\w .'’-]{0,24}?)[>*]?(?:\s?[:：>]\s|\.\s?[—–-]\s)"
)
TIME = re.compile(  # of logs: Feb  3 06:25:01 …, 2024-01-02T10:11:12 …
    r"[\[(<]?(?:(?:\w{3,4}\s+)?\w{3}\s+\d{1,2}\s+|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}[T, ]\s*)"
    r"\d{1,2}:\d{2}.*\w"
)
COMMAND = re.compile(r"(?:\w[\w.@:~/\\-]*)?[$#>%] \w|>>> |In \[\d+\]:")
CODE = re.compile(
    r"\\[a-z]+|[^\s].*[{};]$|\[\w+ \".*\"\]$|</?\w[^<>]*>|#!"
    r"|(?:import|from|def|class|function|var|let|const|return|elif|else|end)\b.*[:;({=]"
)
CONNECTIVE = re.compile(
    r"\W*(?:(then|but|so|and|dann|aber|und|doch|puis|mais|et|alors|ensuite|luego|pero|y|entonces"
    r"|después|así|allora|poi|ma|così|então|mas|depois|toen|maar|sedan|och|potem|ale|wtedy|sonra"
    r"|ama|ve|derken|потом|но|и|а|тогда|затем|потім|але|і|тоді|τότε|μα|και|ύστερα|όμως|αλλά|ثم"
    r"|لكن|फिर|लेकिन|और|तब)\b"
    r"|(然后|于是|可是|但是|后来|忽然|突然|そして|でも|すると|それから|しかし|やがて"
    r"|그리고|그러나|하지만|그래서|그러자))",
    re.IGNORECASE,
)
"""Words for then, but, so and and, which begin sentences of stories and hardly any items."""

MIN_CONNECTIVES = 0.08
"""Share of lines that begin with one, if sentences belong together."""

NUMBER = re.compile(r"\W?(\d+)\W?\W?\s")
DASH = re.compile(r"[–—―„«»]")
MARKER = re.compile(r"<\||-{3}$|.*\d\s*-->\s*\d")


def sign_of_text(texts: Sequence[Iterable[str]], names: Sequence[str] = ()) -> str:
    """Return by what some texts are seen to be running text; an empty string for a list."""
    if sum(TEXT_SUFFIX.search(name) is not None for name in names) > len(names) / 2:
        return "the kind of file"
    lines_of_texts = [_first_lines(text) for text in texts]
    every = list(chain.from_iterable(lines_of_texts))
    lines = [line for line in every if line.strip()]
    if len(lines) < 2:
        return "a single line"
    if len(texts) > 1 and len(lines) < MIN_LIST_FILE * len(texts):
        return "many short files"
    if len(every) - len(lines) > max(MAX_BLANK_LINES, len(every) / 20):
        return "blank lines"
    return _sign_in_lines(lines)


def _sign_in_lines(lines: list[str]) -> str:
    """Return the sign of running text in lines that are not blank."""
    stripped = [GREEK_QUESTION.sub("?", line.strip()) for line in lines]
    number = len(lines)
    lengths = sorted(map(len, stripped))
    median, long = lengths[number // 2], lengths[number * 95 // 100]

    def share(is_sign: Iterable[object]) -> float:
        return sum(map(bool, is_sign)) / number

    markers = sum(MARKER.match(line) is not None for line in stripped)
    if markers >= 2 and markers >= 0.002 * number:
        return "markers between parts"
    if sum(line[0].isspace() for line in lines) >= max(3, 0.15 * number):
        return "indentation"
    are_statements = share(line.endswith(";") for line in stripped) >= 0.95  # one on each line
    if not are_statements and share(line.endswith(CONTINUED) for line in stripped) >= 0.15:
        return "lines that end with a comma or colon"
    speakers = Counter(m[1] for line in stripped if (m := SPEAKER.match(line)))
    turns = sum(n for name, n in speakers.items() if n > 1 and not (name[0].islower() and name[1:]))
    if turns >= 0.5 * number or share(map(DASH.match, stripped)) >= 0.5:
        return "turns of speakers"
    if share(map(TIME.match, stripped)) >= 0.6:
        return "times at the beginning of lines"
    commands = sum(COMMAND.match(line) is not None for line in stripped)
    if commands >= 3 and 0.1 * number <= commands < number:
        return "commands"
    if not are_statements and share(map(CODE.match, stripped)) >= 0.25:
        return "code"
    numbers = [int(match[1]) if (match := NUMBER.match(line)) else 0 for line in stripped]
    counted = sum(after == before + 1 for before, after in pairwise(numbers))
    if median >= MIN_NUMBERED_LENGTH and counted >= 0.6 * number:
        return "numbered paragraphs"
    if long > MAX_ITEM_LENGTH:
        return "long paragraphs"
    breaks = [len(SENTENCE_BREAK.findall(line)) for line in stripped]
    if (median >= 60 and share(count >= 2 for count in breaks) >= 0.3) or (
        median >= 100 and share(breaks) >= 0.6
    ):
        return "paragraphs of several sentences"
    ends = share(map(SENTENCE_END.search, stripped))
    connectives = [m[0].lower().strip() for line in stripped if (m := CONNECTIVE.match(line))]
    has_several = len(set(connectives)) > 1
    if ends >= 0.6 and has_several and len(connectives) >= MIN_CONNECTIVES * number:
        return "sentences that begin with words such as then and but"
    upper, lower = share(s[0].isupper() for s in stripped), share(s[0].islower() for s in stripped)
    broken = sum(
        not SENTENCE_END.search(line) and after[0].islower() for line, after in pairwise(stripped)
    )
    is_wrapped = share(length >= 0.7 * long for length in lengths) >= 0.5
    if median >= 30 and upper >= 0.1 and broken >= 0.2 * number and is_wrapped:
        return "sentences over several lines"
    if upper + lower < 0.2 and median >= 15 and 0.1 < ends < 0.9:  # scripts without case
        return "sentences over several lines"
    return ""


def _first_lines(text: Iterable[str]) -> list[str]:
    """Return the beginnings of the first lines, without blank ones at the end."""
    lines: list[str] = []
    rest = ""
    for chunk in chain(text, "\n"):
        *complete, rest = (rest + chunk).split("\n")
        rest = rest[:MAX_GUESS_LENGTH]
        lines += [line[:MAX_GUESS_LENGTH] for line in complete]
        if len(lines) >= MAX_GUESS_LINES:
            break
    lines = lines[:MAX_GUESS_LINES]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines
