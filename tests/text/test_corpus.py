import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery import TextCorpus

TEXTS = ["one", "two", "three", "four"]
DOCUMENTS = [f"\n {text} ".encode() for text in TEXTS]


@pytest.fixture
def corpus():
    return TextCorpus.from_documents(TEXTS, labels=[1, 2, 3, 4])


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=10))
def test_documents_come_back_as_they_were(documents):
    corpus = TextCorpus.from_documents(iter(documents), preprocessor=None)

    assert list(corpus) == documents
    assert [corpus[i] for i in range(len(corpus))] == documents
    assert [corpus[i - len(corpus)] for i in range(len(corpus))] == documents
    assert len(corpus) == len(documents)
    assert corpus.n_bytes == sum(map(len, documents))
    assert corpus.labels is None


def test_documents_are_preprocessed_once(corpus):
    assert list(corpus) == DOCUMENTS
    assert list(TextCorpus.from_documents(pd.Series(TEXTS), preprocessor=str.encode)) == [
        text.encode() for text in TEXTS
    ]


def test_a_corpus_may_be_empty():
    corpus = TextCorpus.from_documents([])
    assert len(corpus) == corpus.n_bytes == len(list(corpus)) == 0


PARTS = st.lists(st.integers(0, 4), max_size=4)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(PARTS, PARTS)
def test_a_fingerprint_tells_documents_and_not_where_they_lie(some, others):
    corpus = TextCorpus.from_documents([b"a", b"", b"ab", b"b", b"a"], preprocessor=None)
    parts = [corpus[np.array(indices, dtype=int)] for indices in (some, others)]
    prints = [part.fingerprint() for part in parts]

    assert (prints[0] == prints[1]) == (list(parts[0]) == list(parts[1]))
    copies = [TextCorpus.from_documents(part, preprocessor=None) for part in parts]
    assert [copy.fingerprint() for copy in copies] == prints


@pytest.mark.parametrize("index", [4, -5, np.int64(4)])
def test_an_index_beyond_the_end_is_refused(corpus, index):
    with pytest.raises(IndexError):
        corpus[index]


@pytest.mark.parametrize(
    "index",
    [
        slice(1, 3),
        slice(None, None, -1),
        slice(0, 0),
        np.array([3, 0, 0]),
        np.array([-1]),
        [2, 1],
        np.array([True, False, False, True]),
    ],
    ids=str,
)
def test_a_slice_or_an_array_gives_a_corpus(corpus, index):
    part = corpus[index]

    chosen = np.arange(4)[index]
    assert isinstance(part, TextCorpus)
    assert list(part) == [DOCUMENTS[i] for i in chosen]
    assert part.n_bytes == sum(len(DOCUMENTS[i]) for i in chosen)
    np.testing.assert_array_equal(part.labels, np.array([1, 2, 3, 4])[chosen])


def test_an_index_may_be_a_numpy_integer(corpus):
    assert corpus[np.int64(2)] == DOCUMENTS[2]


@pytest.mark.parametrize(
    "labels", [list("abcd"), np.arange(4), pd.Series(range(4), index=[9, 8, 7, 6])]
)
def test_labels_are_kept_as_an_array(labels):
    corpus = TextCorpus.from_documents(TEXTS, labels=labels)

    assert isinstance(corpus.labels, np.ndarray)
    assert list(corpus.labels) == list(labels)


@pytest.mark.parametrize("labels", [[1, 2, 3], (len(text) for text in TEXTS), [[1, 2, 3, 4]]])
def test_another_number_of_labels_is_refused(labels):
    with pytest.raises(ValueError, match="label for each of 4 documents, got labels of shape"):
        TextCorpus.from_documents(TEXTS, labels=labels)


def test_a_bad_document_is_refused_by_its_index():
    with pytest.raises(ValueError, match="index 1 is missing"):
        TextCorpus.from_documents(["text", None])
