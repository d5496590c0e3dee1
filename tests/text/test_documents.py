from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from skdiscovery.text import encode_documents

TEXTS = ["Great!", "Awful."]
ENCODED = [b"\n Great! ", b"\n Awful. "]


class OtherFrame:
    """What a table of polars has in common with pandas': it iterates over columns."""

    def __iter__(self):
        yield pd.Series(TEXTS)

    def __array__(self, dtype=None, copy=None):
        return np.array(TEXTS, dtype=dtype)[:, None]


@pytest.mark.parametrize(
    "X",
    [
        TEXTS,
        tuple(TEXTS),
        [text.encode() for text in TEXTS],
        (text for text in TEXTS),
        dict.fromkeys(TEXTS).keys(),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        np.array(TEXTS, dtype="S"),
        np.array(TEXTS, dtype=object)[:, None],
        pd.Series(TEXTS, index=[7, 3]),
        pd.Series(TEXTS, dtype="string"),
        pd.Series(TEXTS, dtype="category"),
        pd.DataFrame({"text": TEXTS}, index=[7, 3]),
        OtherFrame(),
    ],
    ids=lambda X: type(X).__name__,
)
def test_any_iterable_of_texts_is_read(X):
    assert encode_documents(X) == ENCODED


def test_there_may_be_no_document_at_all():
    assert encode_documents([]) == []


@pytest.mark.parametrize(
    "X", ["a text", b"a text", np.str_("a text"), np.array("a text"), np.array(b"a text")]
)
def test_a_single_text_is_refused_in_the_words_of_count_vectorizer(X):
    with pytest.raises(
        ValueError, match="Iterable over raw text documents expected, string object received"
    ):
        encode_documents(X)


@pytest.mark.parametrize("X", [5, None, {"a": "text"}, object()], ids=lambda X: type(X).__name__)
def test_what_is_no_collection_of_texts_is_refused(X):
    with pytest.raises(TypeError, match=f"Expected an iterable.* got {type(X).__name__}"):
        encode_documents(X)


@pytest.mark.parametrize("X", [pd.DataFrame({"a": TEXTS, "b": TEXTS}), np.array([TEXTS] * 3)])
def test_several_columns_are_refused(X):
    with pytest.raises(ValueError, match=r"one column of texts.*2\)"):
        encode_documents(X)


@pytest.mark.parametrize(
    "missing", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, np.ma.masked], ids=repr
)
@pytest.mark.parametrize("preprocessor", ["review", None])
def test_a_missing_text_is_refused_by_its_index(missing, preprocessor):
    with pytest.raises(ValueError, match="document at index 1 is missing"):
        encode_documents(["text", missing], preprocessor)


def test_a_text_that_is_masked_is_missing():
    with pytest.raises(ValueError, match="document at index 1 is missing"):
        encode_documents(np.ma.array(["text", "secret"], mask=[False, True]))


def test_a_missing_text_of_a_series_is_refused():
    with pytest.raises(ValueError, match="document at index 1 is missing"):
        encode_documents(pd.Series(["text", None]))


@pytest.mark.parametrize(
    "wrong",
    [3, 2.5, True, Decimal(1), ["nested"], ("nested",), object(), bytearray(b"x")],
    ids=type,
)
@pytest.mark.parametrize("preprocessor", ["review", None])
def test_what_is_no_text_is_refused_by_its_index_and_type(wrong, preprocessor):
    with pytest.raises(TypeError, match=f"index 2 is of type {type(wrong).__name__}"):
        encode_documents(["text", "text", wrong], preprocessor)


def test_bytes_that_are_not_utf8_are_refused_by_their_index():
    with pytest.raises(ValueError, match=r"document at index 1 is not UTF-8.*preprocessor=None"):
        encode_documents(["text", b"\xff\xfe"])


def test_without_a_preprocessor_bytes_stay_as_they_are():
    documents = [b"\xff\xfe\x00", b"", b"  <b> "]
    assert encode_documents([*documents, "é"], None) == [*documents, "é".encode()]


def test_a_function_reads_the_decoded_text():
    assert encode_documents(["é", "é".encode()], lambda text: text.upper().encode("latin-1")) == [
        b"\xc9",
        b"\xc9",
    ]
