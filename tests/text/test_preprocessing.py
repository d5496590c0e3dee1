import html

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from unidecode import unidecode

from skdiscovery.text import get_preprocessor, preprocessing

review = get_preprocessor("review")

# Text, then what sentiment-discovery ("nvidia") and generating-reviews-discovering-sentiment
# ("openai") make of it between "\n " and " ".
GOLDEN = [
    ("demo!", "demo!", "demo!"),
    (
        "  two  spaces\tand\ttabs \n newline ",
        "two spaces and tabs newline",
        "two  spaces\tand\ttabs   newline",
    ),
    ("I &amp; you &lt;3 it", "I & you <3 it", "I & you <3 it"),
    ("café crème brûlée", "cafe creme brulee", "café crème brûlée"),
    ("&eacute;t&eacute;", "été", "été"),
    ("a<br />b<b>c</b>", "a b c", "a<br />b<b>c</b>"),
    ("1 < 2 and 3 > 2", "1 2", "1 < 2 and 3 > 2"),
    ("“smart” — quotes…", '"smart" -- quotes...', "“smart” — quotes…"),
    ("", "", ""),
    ("   ", "", ""),
    ("x&nbsp;y", "x y", "x\xa0y"),
    ("&amp;lt;b&amp;gt;", "&lt;b&gt;", "&lt;b&gt;"),
    ("日本", "Ri Ben", "日本"),
    ("emoji 😀!", "emoji !", "emoji 😀!"),
    ("line1\r\nline2", "line1 line2", "line1\r line2"),
    ("<unclosed tag", "<unclosed tag", "<unclosed tag"),
    ("a<b\nc>d", "a<b c>d", "a<b c>d"),
]

REVIEWS = [
    ("demo!", b"demo!"),
    ("", b""),
    (" \t\r\n ", b""),
    ("1 < 2 and 3 > 2", b"1 < 2 and 3 > 2"),
    ("I <3 it, a <b and c> d", b"I <3 it, a <b and c> d"),
    ("<unclosed tag", b"<unclosed tag"),
    ("a<br />b<b>c</b>", b"a b c"),
    ("a<BR>b</P >c", b"a b c"),
    ("<a href=\"x.html?a=1>0\" class='k'>link</a>", b"link"),
    ('<iframe width="560" src="x" allowfullscreen>text</iframe>', b"text"),
    ("<script async src=x.js></script><INPUT Disabled/><video controls loop >text", b"text"),
    ("a <b open c> d, a <b opened> d", b"a <b open c> d, a <b opened> d"),
    ("<!-- a comment --><!DOCTYPE html>text", b"text"),
    ("one <!-- a comment --> two <!-- and another --> three", b"one two three"),
    ("I &amp; you &lt;3 it", b"I & you <3 it"),
    ("&amp;lt;b&amp;gt;", b""),
    ("a&amp;amp;amp;b", b"a&b"),
    ("&#60;i&#x3e;so&lt;/i&gt;", b"so"),
    ("‹b›bold‹/b›", b"bold"),
    ("＆lt;b＆gt;", b""),
    ("caf&eacute; crème — “so”…", b'cafe creme -- "so"...'),
    ("x&nbsp;y", b"x y"),
    ("half a pair \ud83d!", b"half a pair ?!"),
    ("日本", b"Ri Ben"),
]

N_HOSTILE = 100_000
HOSTILE = [
    "<",
    "<a ",
    "<a x=",
    "<a x='",
    "<a x=1 ",
    "<a open ",
    "<!--",
    "<!a",
    "&",
    "&amp;",
    "&lt;",
    "&#",
    ">",
    "éa",
]

FRAGMENTS = st.sampled_from([
    "<", ">", "&", ";", "#", "/", "!", "=", "'", '"', " ", "\n", "\r", "a", "amp;", "lt;", "gt",
    "&lt;", "&gt;", "&amp;", "&amp;lt;", "&amp;amp;gt;", "&#60;", "&#x3e", "&not", "&nbsp;",
    "<b>", "</b>", "<br/>", "<!--", "-->", "<a\tx=", "‹", "›", "＆lt;", "＜", "é", "日", "😀",
    "\ud800", "\udfff", "\x00", "\x0b", "\x1c", "\x85", "\xa0", "\u2028",
])  # fmt: skip
TEXTS = st.lists(FRAGMENTS | st.text(st.characters(), max_size=5), max_size=25).map("".join)


@pytest.mark.parametrize(("text", "expected"), [(text, nvidia) for text, nvidia, _ in GOLDEN])
def test_nvidia_makes_what_sentiment_discovery_makes(text, expected):
    assert get_preprocessor("nvidia")(text) == f"\n {expected} ".encode()


@pytest.mark.parametrize(("text", "expected"), [(text, openai) for text, _, openai in GOLDEN])
def test_openai_makes_what_the_original_makes(text, expected):
    assert get_preprocessor("openai")(text) == f"\n {expected} ".encode()


def test_letters_of_other_scripts_become_what_unidecode_makes_of_them():
    for character in map(chr, range(0x80, 0x3100)):
        expected = " ".join(unidecode(f"x{character}y").split())
        assert get_preprocessor("nvidia")(f"x{character}y") == f"\n {expected} ".encode()


@pytest.mark.parametrize(("text", "expected"), REVIEWS)
def test_review_removes_markup_and_nothing_else(text, expected):
    assert review(text) == b"\n " + expected + b" "


@pytest.mark.fuzz
@settings(max_examples=max(300, settings().max_examples))
@given(TEXTS)
@example("&am<b>p;lt;")
@example("<a <b>>")
def test_review_gives_framed_single_spaced_ascii_and_is_idempotent(text):
    result = review(text)

    body = result.decode("ascii")
    assert body.startswith("\n ")
    assert body.endswith(" ")
    assert body[2:-1] == " ".join(body.split())
    assert html.unescape(body) == body
    assert review(body) == result


@pytest.mark.fuzz
@settings(max_examples=max(100, settings().max_examples))
@given(TEXTS)
def test_every_preprocessor_takes_every_text(text):
    for name in ("openai", "nvidia", None):
        get_preprocessor(name)(text).decode("utf-8")


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("name", ["review", "openai"])
def test_a_long_hostile_text_takes_no_longer_than_another(name, piece):
    # A pattern that backtracks would take minutes to hours here.
    text = piece * (N_HOSTILE // len(piece))
    assert get_preprocessor(name)(text).startswith(b"\n ")


@pytest.mark.parametrize(
    "text",
    ["&" + "amp;" * (N_HOSTILE // 4), "<a " * (N_HOSTILE // 4) + ">" * (N_HOSTILE // 4)],
    ids=["entities", "tags"],
)
def test_review_reads_a_deeply_nested_text_a_bounded_number_of_times(text, monkeypatch):
    passes = []
    unescape = html.unescape

    def counting(given):
        passes.append(1)
        assert len(passes) <= 100, "a pass for each level: quadratic time"
        return unescape(given)

    monkeypatch.setattr(html, "unescape", counting)
    result = review(text)

    passes.clear()
    assert review(result.decode("ascii")) == result


@pytest.mark.parametrize("name", ["review", "openai", "nvidia"])
def test_a_character_reference_of_any_length_is_text(name):
    # Python refuses to turn more than 4300 digits into a number.
    result = get_preprocessor(name)("x &#" + "1" * 5000 + "; y")
    assert result.startswith(b"\n x ")
    assert result.endswith(b" y ")


def test_none_takes_the_bytes_of_the_text_as_they_are():
    assert get_preprocessor(None)(" é &amp;\n") == " é &amp;\n".encode()


def test_a_function_is_its_own_preprocessor():
    assert get_preprocessor(lambda text: text.upper().encode())("Shout") == b"SHOUT"


def test_a_function_that_forgets_to_encode_is_told_so():
    message = r"preprocessor <method 'upper'.* returned str for 'Shout': expected bytes"
    with pytest.raises(TypeError, match=message):
        get_preprocessor(str.upper)("Shout")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'reviews'.*\['nvidia', 'openai', 'review'\]"):
        get_preprocessor("reviews")


@pytest.mark.parametrize("text", ["ab  ", "  ab", "ab cd ", "   ", "a b  c"])
def test_whitespace_is_collapsed_over_the_seams_of_stretches(text, monkeypatch):
    monkeypatch.setattr(preprocessing, "_STRETCH", 2)
    assert preprocessing._collapse_whitespace(text) == " ".join(text.split())
