import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from skdiscovery.inference.cache import FeatureCache


def make_cache(folder, settings=b"these", dtype=np.float32):
    return FeatureCache(folder, settings, dtype)


def make_documents(n):
    return [b"document %d" % k for k in range(n)]


def make_vectors(n, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(dtype)


def assert_found(found, positions, vectors):
    assert sorted(found) == list(positions)
    for position, vector in found.items():
        assert vector.dtype == vectors.dtype
        np.testing.assert_array_equal(vector, vectors[position])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_put_is_found_and_nothing_else(tmp_path, dtype):
    documents, vectors = make_documents(5), make_vectors(5, dtype)
    cache = make_cache(tmp_path / "new" / "folder", dtype=dtype)
    assert cache.get(documents) == {}
    cache.put(documents[1::2], vectors[1::2])
    assert_found(cache.get(documents), [1, 3], vectors)
    reopened = make_cache(tmp_path / "new" / "folder", dtype=dtype)
    assert_found(reopened.get(documents), [1, 3], vectors)


def test_nothing_and_the_empty_document(tmp_path):
    cache = make_cache(tmp_path)
    cache.put([], make_vectors(0))
    assert cache.get([]) == {}
    cache.put([b""], make_vectors(1))
    assert_found(cache.get([b"", b" "]), [0], make_vectors(1))


def test_a_document_may_be_asked_for_twice(tmp_path):
    cache = make_cache(tmp_path)
    cache.put([b"a"], make_vectors(1))
    assert sorted(cache.get([b"a", b"b", b"a"])) == [0, 2]


def test_settings_do_not_mix(tmp_path):
    documents, vectors = make_documents(4), make_vectors(4)
    these, those = make_cache(tmp_path), make_cache(tmp_path, b"those")
    these.put(documents, vectors)
    assert those.get(documents) == {}
    those.put(documents[:2], -vectors[:2])
    assert_found(these.get(documents), range(4), vectors)
    assert_found(those.get(documents), range(2), -vectors)


def test_thousands_of_documents(tmp_path):
    documents, vectors = make_documents(2_501), make_vectors(2_501)
    cache = make_cache(tmp_path)
    cache.put(documents, vectors)
    assert_found(cache.get(documents), range(2_501), vectors)


def test_writers_at_once_lose_nothing(tmp_path):
    documents, vectors = make_documents(400), make_vectors(400)

    def write(start):
        cache = make_cache(tmp_path)
        for k in range(start, 400, 8):
            cache.put(documents[k : k + 4], vectors[k : k + 4])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, [0, 2, 4, 6]))
    assert_found(make_cache(tmp_path).get(documents), range(400), vectors)


def test_a_writer_that_dies_halfway_leaves_no_trace(tmp_path):
    documents, vectors = make_documents(3), make_vectors(3)
    cache = make_cache(tmp_path)
    cache.put(documents[:1], vectors[:1])

    dying = sqlite3.connect(cache.path)
    dying.execute("INSERT OR REPLACE INTO features SELECT x'00', vector FROM features")
    dying.execute("UPDATE features SET vector = x'00'")
    dying.close()

    assert_found(cache.get(documents), [0], vectors)
    cache.put(documents[1:], vectors[1:])
    assert_found(make_cache(tmp_path).get(documents), range(3), vectors)


def test_an_error_in_the_middle_of_writing_keeps_nothing_of_it(tmp_path):
    cache = make_cache(tmp_path)
    with pytest.raises(ValueError, match="zip"):
        cache.put(make_documents(3), make_vectors(2))
    assert cache.get(make_documents(3)) == {}


def test_many_may_open_a_new_cache_at_once(tmp_path):
    document, vector = make_documents(1), make_vectors(1)

    def open_and_write(folder):
        make_cache(folder).put(document, vector)

    for attempt in range(10):
        folder = tmp_path / str(attempt)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(open_and_write, [folder] * 8))
        assert_found(make_cache(folder).get(document), [0], vector)
