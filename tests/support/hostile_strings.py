"""Texts that a page must show as texts, and not stumble over."""

MARKUP = [
    "<img src=x onerror=window.pwned=1>",
    "<script>window.pwned=1</script>",
    "<svg onload=alert(1)>",
    "</bdi></li><iframe src=javascript:alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "&lt;b&gt;&amp;",
    "{{7*7}}${7*7}#{7*7}",
    "'\"><style>*{display:none}</style>",
    "javascript:alert(1)",
    "__proto__",
    "constructor",
    "<base href=//example.org>",
    "<form action=//example.org><input name=x>",
    "<!--",
    "]]>",
    "<template>",
]

UNSEEN = [
    *map(chr, range(32)),
    *map(chr, range(127, 160)),
    *map(chr, range(0x200B, 0x2010)),
    *map(chr, range(0x2028, 0x202F)),
    *map(chr, range(0x2060, 0x2070)),
    "\u061c",
    "\u00ad",
    "\ufeff",
    "\U000e0041",
]
"""Characters that cannot be seen, or turn a line round."""

LONG = [
    "\u202egnp.exe",
    "a\u202e" * 200,
    "\u2066\u2067\u2068" * 50,
    "e" + "\u0301" * 500,
    "\u0301" * 300,
    "x" * 20_000,
    "\ufdfd" * 60,
    "\U00012427" * 40,
    "𝕏" * 3000,
    "👩\u200d👩\u200d👧" * 200,
    "\u0e47" * 400,
    "مرحبا " * 500,
    "שלום",
    "\n" * 300,
    "\t" * 300,
    " " * 3000,
    "a b " * 2000,
    "\ud800",
    "\udfff x",
    "\ufffe\uffff",
    "\u0000" * 100,
]

PILED = [f"<b id=x{number}>{chr(0x300 + number) * 40}" for number in range(112)]
SELECTED = [chr(0xFE00 + number) * 30 for number in range(16)]

HOSTILE = [*MARKUP, *(f"a{mark}b" for mark in UNSEEN), *UNSEEN, *LONG, *PILED, *SELECTED]
