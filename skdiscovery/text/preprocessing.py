r"""Preprocessors: from a text to the bytes that a language model reads.

Each frames a text as ``"\n "`` + text + ``" "``: the newline and the blank tell the model that a
document starts, and the last blank closes its last word.
"""

import codecs
import html
import re
from collections.abc import Callable
from functools import partial

from unidecode import unidecode

Preprocessor = Callable[[str], bytes]

PREFIX = "\n "
SUFFIX = " "

# Attributes that HTML lets stand without a value.
_BOOLEAN = """allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|
    disabled|formnovalidate|hidden|inert|ismap|itemscope|loop|multiple|muted|nomodule|noshade|
    novalidate|nowrap|open|playsinline|readonly|required|reversed|selected"""

# What looks like a tag: a name right after "<", attributes with the values they need, ">". So
# "1 < 2 and 3 > 2", "I <3 it" and "a <b and c> d" are text. Possessive quantifiers keep hostile
# input linear.
_TAG = re.compile(
    rf"""</?[a-zA-Z][a-zA-Z0-9:-]*+
        (?:\s++(?:
            [a-zA-Z_:][\w:.-]*+\s*+=\s*+(?:"[^"]*"|'[^']*'|[^\s"'<>]+)
          | (?i:{_BOOLEAN})(?=[\s/>])
        ))*
        \s*/?>
      | <!--[^<>]*-->
      | <![a-zA-Z][^<>]*>
    """,
    re.VERBOSE,
)
# With the blanks and the like in between, so that whole sentences of another script are one match.
_NOT_ASCII = re.compile(r"[^\x00-\x7f]++(?:[\x00-@]++[^\x00-\x7f]++)*+")
# sentiment-discovery's pattern: whatever stands between "<" and the next ">" of the same line.
_ANYTHING_IN_ANGLE_BRACKETS = re.compile(r"<[^>\n]*+(>?)")
_LONG_REFERENCE = re.compile(r"&#[0-9]{4301,}+;?")
_BLANK = re.compile(r"\s")  # whatever str.split takes for one
_STRETCH = 2**20
MAX_DEPTH = 20


def review(text: str) -> bytes:
    """Turn a review into plain ASCII: no markup, no entities, single blanks; idempotent."""
    for _ in range(MAX_DEPTH):
        cleaned = _TAG.sub(" ", _unescape(text)) if "&" in text or "<" in text else text
        cleaned = _to_ascii(cleaned)
        # An entity may hide an entity ("&amp;lt;"), and transliteration may write one or a tag.
        if cleaned == text:
            return _frame(_collapse_whitespace(text))
        text = cleaned
    # Nested deeper than any honest text: what is left of it is no markup any more.
    return _frame(_collapse_whitespace(text.replace("&", " ").replace("<", " ")))


def openai(text: str) -> bytes:
    """Preprocess as OpenAI's generating-reviews-discovering-sentiment does."""
    return _frame(_unescape(text).replace("\n", " ").strip())


def nvidia(text: str) -> bytes:
    """Preprocess as NVIDIA's sentiment-discovery does, its order of steps included."""
    text = _ANYTHING_IN_ANGLE_BRACKETS.sub(lambda match: " " if match[1] else match[0], text)
    text = _unescape(_to_ascii(text))
    return _frame(_collapse_whitespace(text))


class _Transliterations(dict[int, str]):
    """What unidecode writes for a character, looked up once: ``str.translate`` asks for it."""

    def __missing__(self, code: int) -> str:
        # Half a surrogate pair, as in broken JSON, is "?": no UTF-8 can hold it.
        self[code] = unidecode(_utf8(chr(code)).decode("utf-8"))
        return self[code]


_TRANSLITERATIONS = _Transliterations()

PREPROCESSORS: dict[str, Preprocessor] = {"review": review, "openai": openai, "nvidia": nvidia}


def get_preprocessor(preprocessor: str | Preprocessor | None) -> Preprocessor:
    r"""Return the function from text to bytes that ``preprocessor`` names.

    Parameters
    ----------
    preprocessor : {"review", "openai", "nvidia"}, callable or None
        A name, a function ``str -> bytes``, or None for the UTF-8 bytes of the text as it is.

    Returns
    -------
    callable
        Function from ``str`` to ``bytes``.

    Raises
    ------
    ValueError
        If the name is not known.

    Examples
    --------
    >>> from skdiscovery.text import get_preprocessor
    >>> get_preprocessor("review")("Caf&eacute;<br />noir:  1 < 2")
    b'\n Cafe noir: 1 < 2 '
    """
    if preprocessor is None:
        return _utf8
    if callable(preprocessor):
        return partial(_checked, preprocessor)
    if preprocessor not in PREPROCESSORS:
        raise ValueError(
            f"Unknown preprocessor {preprocessor!r}: expected one of {sorted(PREPROCESSORS)}, "
            "a function from str to bytes, or None."
        )
    return PREPROCESSORS[preprocessor]


def _checked(preprocess: Preprocessor, text: str) -> bytes:
    """Preprocess a text by a user's function, which may have forgotten to encode."""
    encoded = preprocess(text)
    if not isinstance(encoded, bytes):
        raise TypeError(
            f"The preprocessor {preprocess!r} returned {type(encoded).__name__} for {text[:40]!r}: "
            "expected bytes, as text.encode() gives."
        )
    return encoded


def _unescape(text: str) -> str:
    return html.unescape(_LONG_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", text))


def _frame(text: str) -> bytes:
    return _utf8(PREFIX + text + SUFFIX)


def _collapse_whitespace(text: str) -> str:
    """Strip a text and leave single blanks, some words at a time: a million take 60 MB."""
    collapsed, start = [], 0
    while start < len(text):
        blank = _BLANK.search(text, start + _STRETCH)
        stop = len(text) if blank is None else blank.start()
        collapsed.append(" ".join(text[start:stop].split()))
        start = stop
    return " ".join(filter(None, collapsed))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")


def _to_ascii(text: str) -> str:
    """Write a text in ASCII as unidecode does, at the encoder's speed where it is ASCII."""
    return text.encode("ascii", errors="skdiscovery.transliterate").decode("ascii")


def _transliterate(error: UnicodeError) -> tuple[str, int]:
    """Return what the encoder is to write for a stretch that is not ASCII, and where it ends."""
    assert isinstance(error, UnicodeEncodeError)
    stretch = _NOT_ASCII.match(error.object, error.start)
    assert stretch is not None  # the encoder stopped at such a character
    return stretch[0].translate(_TRANSLITERATIONS), stretch.end()


codecs.register_error("skdiscovery.transliterate", _transliterate)
