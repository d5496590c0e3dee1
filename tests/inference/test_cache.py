import logging
import multiprocessing
import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from skdiscovery.inference.cache import _SETUP, FeatureCache


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
    dying.execute("INSERT INTO vectors SELECT 99, x'00', checked_vector FROM vectors")
    dying.execute("UPDATE vectors SET checked_vector = x'00'")
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


def test_a_file_that_another_has_just_begun_is_completed(tmp_path):
    with closing(sqlite3.connect(tmp_path / "vectors.sqlite")) as another:
        for statement in _SETUP[:-1]:
            another.execute(statement)
        assert another.execute("PRAGMA page_count").fetchone() == (1,)
        cache = make_cache(tmp_path)
        cache.put(make_documents(3), make_vectors(3))
    assert_found(cache.get(make_documents(3)), range(3), make_vectors(3))


def fill(cache, n, per_put=50):
    """Put ``n`` documents, a few at a time, and return them with their vectors of 4 kB."""
    documents = make_documents(n)
    vectors = np.random.default_rng(0).normal(size=(n, 1024)).astype(np.float32)
    for k in range(0, n, per_put):
        cache.put(documents[k : k + per_put], vectors[k : k + per_put])
    return documents, vectors


@pytest.mark.parametrize("per_put", [1, 50, 200])
def test_the_oldest_make_room_for_the_newest(tmp_path, per_put):
    cache = FeatureCache(tmp_path, b"these", np.float32, max_bytes=400_000)
    documents, vectors = fill(cache, 130, per_put)
    assert cache.path.stat().st_size <= 400_000
    found = cache.get(documents)
    assert 30 < len(found) < 100
    assert_found(found, range(130 - len(found), 130), vectors)


def test_a_limit_shrinks_what_is_there(tmp_path):
    documents, vectors = fill(make_cache(tmp_path), 300)
    limited = FeatureCache(tmp_path, b"these", np.float32, max_bytes=400_000)
    assert len(limited.get(documents)) == 300
    limited.put(documents[:1], vectors[:1])
    assert limited.path.stat().st_size <= 400_000
    assert 0 in limited.get(documents)


def test_a_limit_below_one_vector_keeps_none(tmp_path):
    cache = FeatureCache(tmp_path, b"these", np.float32, max_bytes=1)
    documents, _ = fill(cache, 3)
    assert cache.get(documents) == {}


def write_for_ever(folder, max_bytes, seed, says):
    cache = FeatureCache(folder, b"these", np.float32, max_bytes)
    random = np.random.default_rng(seed)
    while True:
        numbers = random.integers(400, size=20)
        vectors = np.repeat(numbers[:, None], 1024, axis=1).astype(np.float32)
        cache.put([b"%d" % number for number in numbers], vectors)
        says.send_bytes(b"put")


def test_writers_that_evict_and_are_killed_leave_whole_entries(tmp_path, monkeypatch):
    """SIGKILL wherever it falls, some times, with two writers each time."""
    # On a slow disk one may not get a turn beside another that never pauses.
    monkeypatch.setattr("skdiscovery.inference.cache._BUSY_SECONDS", 5)
    limit = 400_000
    cache = FeatureCache(tmp_path, b"these", np.float32, max_bytes=limit)
    documents = [b"%d" % number for number in range(400)]
    processes = multiprocessing.get_context("fork")
    for attempt in range(3):
        heard, says = zip(*(processes.Pipe(duplex=False) for _ in range(2)), strict=True)
        writers = [
            processes.Process(target=write_for_ever, args=(tmp_path, limit, 2 * attempt + k, end))
            for k, end in enumerate(says)
        ]
        for writer in writers:
            writer.start()
        for end in heard:
            for _ in range(2 + attempt):
                assert end.poll(120)
                assert end.recv_bytes() == b"put"
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.join()
            assert writer.exitcode == -signal.SIGKILL
        found = cache.get(documents)
        assert len(found) >= 20
        for number, vector in found.items():
            np.testing.assert_array_equal(vector, np.full(1024, number, np.float32))
        assert cache.path.stat().st_size <= limit
    (integrity,) = sqlite3.connect(cache.path).execute("PRAGMA integrity_check").fetchone()
    assert integrity == "ok"


def test_a_damaged_entry_is_not_found_and_can_be_replaced(tmp_path, caplog):
    documents, vectors = make_documents(3), make_vectors(3)
    cache = make_cache(tmp_path)
    cache.put(documents, vectors)
    content = bytearray(cache.path.read_bytes())
    content[content.index(vectors[1].tobytes()) + 5] ^= 1
    cache.path.write_bytes(content)

    with caplog.at_level(logging.WARNING, "skdiscovery"):
        assert_found(cache.get(documents), [0, 2], vectors)
    assert "is damaged" in caplog.text
    cache.put(documents[1:2], vectors[1:2])
    assert_found(cache.get(documents), range(3), vectors)


@pytest.mark.parametrize("when", ["before it is opened", "after"])
@pytest.mark.parametrize("damage", [lambda content: b"no database" * 5000, lambda content: (
    content[:5000] + bytes(len(content) - 5000))], ids=["other content", "zeros"])  # fmt: skip
def test_a_damaged_file_is_replaced(tmp_path, caplog, damage, when):
    cache = make_cache(tmp_path)
    documents, vectors = fill(cache, 60)
    cache.path.write_bytes(damage(cache.path.read_bytes()))
    with caplog.at_level(logging.WARNING, "skdiscovery"):
        if when == "before it is opened":
            cache = make_cache(tmp_path)
        assert cache.get(documents) == {}
    assert "is damaged" in caplog.text
    cache.put(documents, vectors)
    assert_found(cache.get(documents), range(60), vectors)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_short_gives_no_wrong_vector(tmp_path, share):
    cache = make_cache(tmp_path)
    documents, vectors = fill(cache, 60)
    content = cache.path.read_bytes()
    cache.path.write_bytes(content[: int(share * len(content))])
    cache = make_cache(tmp_path)
    for position, vector in cache.get(documents).items():
        np.testing.assert_array_equal(vector, vectors[position])
    cache.put(documents, vectors)
    cache.put(documents, vectors)
    assert_found(cache.get(documents), range(60), vectors)


def test_a_full_disk_costs_what_does_not_fit_and_no_more(small_disk, caplog):
    cache = make_cache(small_disk(600_000))
    with caplog.at_level(logging.WARNING, "skdiscovery"):
        documents, vectors = fill(cache, 300)
    assert caplog.text.count("is not used: database or disk is full") == 1
    found = FeatureCache(cache.path.parent, b"these", np.float32).get(documents)
    assert len(found) >= 50
    assert_found(found, sorted(found), vectors)


def test_a_permission_that_is_lost_costs_what_comes_after(open_folder, withdraw, caplog):
    cache = make_cache(open_folder)
    documents, vectors = fill(cache, 4)
    withdraw()
    with caplog.at_level(logging.WARNING, "skdiscovery"):
        cache.put([b"another"], vectors[:1])
    assert "readonly database" in caplog.text
    assert_found(make_cache(open_folder).get([*documents, b"another"]), range(4), vectors)


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(open_folder, withdraw):
    withdraw()
    with pytest.raises(OSError, match=r"cannot be opened: unable to open .*memory="):
        make_cache(open_folder)


@pytest.mark.parametrize("when", ["before it is opened", "after"])
def test_another_that_never_ends_its_writing_costs_time_and_no_result(
    tmp_path, monkeypatch, caplog, when
):
    monkeypatch.setattr("skdiscovery.inference.cache._BUSY_SECONDS", 0.05)
    cache = make_cache(tmp_path)
    documents, vectors = fill(cache, 3)
    other = sqlite3.connect(cache.path)
    other.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.WARNING, "skdiscovery"):
        if when == "before it is opened":
            cache = make_cache(tmp_path)
        assert cache.get(documents) == {}
    assert caplog.text.count("is not used: database is locked") == 1
    cache.put(documents, vectors)
    other.close()
    assert_found(make_cache(tmp_path).get(documents), range(3), vectors)


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path):
    cache = FeatureCache(tmp_path, b"these", np.float32, max_bytes=400_000)
    documents, vectors = fill(cache, 60)
    os.utime(cache.path, (0, 0))
    cache.put([b"new"], vectors[:1])
    assert 0 in cache.get([b"new"])
    assert sorted(cache.get(documents)) == list(range(60 - len(cache.get(documents)), 60))


def test_an_entry_under_the_key_of_another_is_damaged(tmp_path):
    cache = make_cache(tmp_path)
    cache.put(make_documents(2), make_vectors(2))
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute(
            "UPDATE vectors SET checked_vector = "
            "(SELECT checked_vector FROM vectors WHERE number = 1)"
        )
    assert_found(cache.get(make_documents(2)), [0], make_vectors(2))


def test_the_journal_of_a_damaged_file_goes_with_it(tmp_path):
    path = make_cache(tmp_path).path
    journal = path.with_name(f"{path.name}-journal")
    path.write_bytes(b"no database" * 1000)
    journal.write_bytes(bytes(512))
    make_cache(tmp_path)
    assert not journal.exists()


def test_damage_of_any_kind_is_damage(tmp_path):
    cache = make_cache(tmp_path)

    def find_damage(connection):
        error = sqlite3.DatabaseError("row missing from index")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
        raise error

    cache._attempt(find_damage)
    assert not cache.path.exists()
    cache.put([b"a"], make_vectors(1))
    assert_found(cache.get([b"a"]), [0], make_vectors(1))
