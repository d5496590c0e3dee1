import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiscovery import TextCorpus
from skdiscovery.text.splitting import normalized_proportions, part_sizes


def numbered(n):
    return TextCorpus.from_documents([b"%d" % i for i in range(n)], range(n), preprocessor=None)


@pytest.mark.parametrize(
    ("proportions", "expected"),
    [
        ("1.", [1]),
        ("1000,1,1", [0.998004, 0.000998, 0.000998]),
        ((1000, 1, 1), [0.998004, 0.000998, 0.000998]),
        (".8", [0.8, 0.2]),
        (0.8, [0.8, 0.2]),
        (".8,.1", [0.8, 0.1, 0.1]),
        ("8/1/1", [0.8, 0.1, 0.1]),
        ("2, 1", [0.666667, 0.333333]),
        ((1000, 0, 1), [0.999001, 0, 0.000999]),
        (np.array([0.7, 0.2, 0.1]), [0.7, 0.2, 0.1]),
    ],
)
def test_proportions_are_read(proportions, expected):
    np.testing.assert_allclose(normalized_proportions(proportions), expected, atol=1e-6)


@pytest.mark.parametrize(
    "proportions", ["", "a,b", "1;2", (), (0, 0), (-1, 2), (1, np.nan), (1, np.inf), None, [[1]]]
)
def test_what_is_no_proportion_is_refused(proportions):
    with pytest.raises(ValueError, match="expected non-negative numbers"):
        normalized_proportions(proportions)


SHARES = st.lists(st.sampled_from([0, 0.001, 1, 3, 1000]), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(SHARES.filter(any), st.integers(5, 3000))
def test_sizes_follow_the_shares_and_none_is_lost_or_empty(proportions, n_documents):
    shares = normalized_proportions(proportions)
    sizes = part_sizes(n_documents, shares)

    assert sizes.sum() == n_documents
    assert np.array_equal(sizes > 0, shares > 0)
    assert np.all(np.abs(sizes - shares * n_documents) <= len(shares))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(SHARES.filter(any), st.integers(5, 100), st.integers(0, 3))
def test_parts_are_disjoint_and_cover_the_corpus(proportions, n_documents, seed):
    parts = numbered(n_documents).split(proportions, random_state=seed)

    found = [int(document) for part in parts for document in part]
    assert sorted(found) == list(range(n_documents))
    for part in parts:
        assert list(map(int, part)) == sorted(part.labels) == list(part.labels)
        assert part.n_bytes == sum(map(len, part)) == part.offsets[-1]


def test_a_split_is_random_and_seeded():
    corpus = numbered(100)
    first, again, other = (corpus.split((1, 1), random_state=seed) for seed in (0, 0, 1))

    assert [list(part) for part in first] == [list(part) for part in again]
    assert list(first[0]) != list(other[0])
    assert list(first[0]) != list(corpus[:50])


def test_a_share_of_nothing_is_an_empty_corpus():
    train, validation, test = numbered(2).split("1,0,1", random_state=0)
    assert len(train) == len(test) == 1
    assert len(validation) == validation.n_bytes == len(validation.labels) == 0


def test_fewer_documents_than_parts_are_refused():
    assert [len(part) for part in numbered(3).split()] == [1, 1, 1]
    with pytest.raises(ValueError, match="2 documents cannot be split into 3 parts"):
        numbered(2).split()


@pytest.mark.parametrize(
    ("n_documents", "n", "starts"), [(10, 3, [0, 3, 6]), (9, 2, [0, 4]), (3, 3, [0, 1, 2])]
)
def test_shards_are_consecutive(n_documents, n, starts):
    corpus = numbered(n_documents)
    shards = corpus.shards(n)

    assert [int(shard[0]) for shard in shards] == starts
    assert [document for shard in shards for document in shard] == list(corpus)


@pytest.mark.parametrize("n", [0, 4, -1])
def test_shards_without_documents_are_refused(n):
    with pytest.raises(ValueError, match=f"3 documents cannot be cut into {n} shards"):
        numbered(3).shards(n)


def test_parts_of_parts_share_the_bytes():
    corpus = numbered(20)
    part = corpus.split((1, 1), random_state=0)[0].shards(2)[1][::-1]

    assert len(part) == 5
    assert np.shares_memory(part._data, corpus._data)
    assert list(part) == [b"%d" % label for label in part.labels]
    assert part.fingerprint() == TextCorpus.from_documents(part, preprocessor=None).fingerprint()
