"""One spelling for texts that read the same."""

from __future__ import annotations

import re
import unicodedata

# What Unicode calls Default_Ignorable_Code_Point: invisible, so a reader cannot tell texts with and
# without them apart. Lone surrogates cannot be written as UTF-8, so they cannot be in a vocabulary.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IGNORABLES = re.compile(f"[{_IGNORABLE}]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_ODD = re.compile(f"[{_IGNORABLE}\ud800-\udfff]")
# Putting n combining marks in order takes n * n steps, half a second for 20,000 of them. Unicode's
# Stream-Safe Text Format allows 30 in a row. Every combining mark is one of these characters.
_LONG_RUN = re.compile(r"([^\w\s\x00-\x7f]{30})[^\w\s\x00-\x7f]+")


def normalise(text: str, max_characters: int) -> str:
    """The text in NFKC, casefolded, without invisible characters.

    A lone surrogate becomes U+FFFD. Of more than 30 combining marks or symbols in a row 30 stay.

    Args:
        text: Any string.
        max_characters: What is behind so many characters is ignored, before and after normalising
            (which can make a text longer).
    """
    text = text[:max_characters]
    if text.isascii():
        return text.lower()
    if _ODD.search(text):
        text = _IGNORABLES.sub("", _SURROGATES.sub("\ufffd", text))
    if len(text) > 30:
        text = _LONG_RUN.sub(r"\1", text)
    text = unicodedata.normalize("NFKC", text).casefold()
    # Casefolding takes a few letters apart, such as U+01F0; this puts them together again.
    return unicodedata.normalize("NFKC", text)[:max_characters]
