import numpy as np
import pytest

from skdiscovery import TextCorpus
from skdiscovery.training import stream
from skdiscovery.training.stream import ShuffledStream

SEED = (5, 2)
DOCUMENTS = [bytes([k]) * (k % 7) for k in range(1, 200)]


@pytest.fixture
def corpus():
    return TextCorpus.from_documents(DOCUMENTS, preprocessor=None)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(stream, "SHARD_BYTES", 60)


def whole(corpus, seed=SEED, reset_at="document"):
    symbols, marked = ShuffledStream(corpus, seed).read(np.array([0]), corpus.n_bytes, reset_at)
    return symbols[0], marked[0]


def test_it_is_a_circle(corpus):
    symbols, marked = whole(corpus)
    starts = np.array([-5, 0, 17, corpus.n_bytes - 3, corpus.n_bytes])
    pieces, marks = ShuffledStream(corpus, SEED).read(starts, 40, "document")
    for start, piece, mark in zip(starts, pieces, marks, strict=True):
        places = np.arange(start, start + 40) % corpus.n_bytes
        np.testing.assert_array_equal(piece, symbols[places])
        np.testing.assert_array_equal(mark, marked[places])


def test_all_documents_are_in_it_whole(corpus):
    symbols, marked = whole(corpus)
    pieces = np.split(symbols, np.flatnonzero(marked)[1:])
    assert sorted(piece.tobytes() for piece in pieces) == sorted(filter(None, DOCUMENTS))
    assert [piece.tobytes() for piece in pieces] != list(filter(None, DOCUMENTS))


def test_a_part_of_a_corpus_and_one_on_disk_give_the_same(tmp_path):
    texts = [f"review {k}" * (k % 5 + 1) for k in range(100)]
    path = tmp_path / "reviews.txt"
    path.write_text("\n".join(texts))
    on_disk = TextCorpus.from_file(path, cache_dir=tmp_path)
    in_memory = TextCorpus.from_documents(texts)
    chosen = np.arange(3, 90, 2)
    for one, other in [(on_disk, in_memory), (on_disk[chosen], in_memory[chosen])]:
        for a, b in zip(whole(one), whole(other), strict=True):
            np.testing.assert_array_equal(a, b)


def test_only_shards_in_use_are_held(corpus):
    shuffled = ShuffledStream(corpus, SEED)
    n_shards = len(shuffled._ends)
    assert n_shards > 8
    for start in range(0, corpus.n_bytes, 10):
        shuffled.read(np.array([start, start + 200]), 10, "shard")
        assert len(shuffled._open) <= 4


def test_a_document_longer_than_a_shard_is_one(corpus):
    long = TextCorpus.from_documents([b"a" * 500, b"b", b"c" * 70, b"d" * 10], preprocessor=None)
    symbols, marked = whole(long, reset_at="shard")
    assert sorted(np.unique(symbols, return_counts=True)[1].tolist()) == [1, 10, 70, 500]
    assert marked.sum() == 3  # "b" and "c" together are one shard


def test_shards_of_one_length_have_orders_of_their_own():
    corpus = TextCorpus.from_documents([bytes([k % 60]) for k in range(600)], preprocessor=None)
    symbols, _ = ShuffledStream(corpus, SEED).read(np.array([0]), 600, "always")
    assert len({bytes(shard) for shard in symbols.reshape(10, 60)}) == 10


def test_a_shard_is_read_once_as_lanes_go_through_it(corpus, monkeypatch):
    shuffled, opened = ShuffledStream(corpus, SEED), []
    read_shard = shuffled._read_shard
    monkeypatch.setattr(shuffled, "_read_shard", lambda k: opened.append(k) or read_shard(k))
    for start in range(0, corpus.n_bytes // 2, 10):
        shuffled.read(np.array([start, start + 1]), 9, "shard")
    assert len(opened) == len(set(opened)) > 2
