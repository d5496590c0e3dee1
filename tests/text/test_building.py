import errno
import gc
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from filelock import FileLock

from skdiscovery import TextCorpus
from skdiscovery.files import whole_file
from skdiscovery.text import building
from skdiscovery.text.labels import LabelColumn, binarized

TEXTS = ["one", "", "NA", "four ü"]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "reviews.jsonl"
    write(path, zip(TEXTS, [1, None, 5, 3], strict=True))
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def write(path, documents):
    lines = [json.dumps({"sentence": text, "label": label}) for text, label in documents]
    path.write_text("\n".join(lines))


def folders(cache):
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def no_reading(*_):
    raise AssertionError("the source was read again")


def test_a_file_gives_what_its_documents_give(source, cache):
    corpus = TextCorpus.from_file(source, cache_dir=cache)
    expected = TextCorpus.from_documents(TEXTS)

    assert list(corpus) == list(expected)
    assert corpus.fingerprint() == expected.fingerprint()
    assert corpus.n_bytes == expected.n_bytes
    assert corpus.labels is None
    np.testing.assert_array_equal(corpus.offsets, expected.offsets)


def test_several_files_make_one_corpus(source, tmp_path, cache):
    more = tmp_path / "more.txt"
    more.write_text("five\n")
    corpus = TextCorpus.from_file(
        iter([more, str(source), more]), preprocessor=None, cache_dir=str(cache)
    )
    assert list(corpus) == [b"five", *(text.encode() for text in TEXTS), b"five"]


def test_documents_without_a_byte_make_a_corpus(tmp_path, cache):
    (tmp_path / "a.txt").write_text("\n\n")
    corpus = TextCorpus.from_file(tmp_path / "a.txt", preprocessor=None, cache_dir=cache)
    assert list(corpus) == [b"", b""]
    assert corpus.n_bytes == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, -1, 5, 3]),
        ({"drop_unlabeled": True}, [1, 5, 3]),
        ({"binarize_labels": True}, [0, -1, 1, 0]),
        ({"binarize_labels": True, "drop_unlabeled": True}, [0, 1, 0]),
    ],
)
def test_labels_are_aligned_with_documents(source, cache, options, expected):
    corpus = TextCorpus.from_file(source, label_key="label", cache_dir=cache, **options)

    assert type(corpus.labels) is np.ndarray
    assert corpus.labels.tolist() == expected
    assert len(corpus) == len(expected)
    assert corpus[-1] == b"\n four u "
    assert corpus[1:].labels.tolist() == expected[1:]
    assert corpus[[2, 0]].labels.tolist() == [expected[2], expected[0]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "", "0"], [1, -1, 0]),
        (["1.0", "NA", "nan"], [1, -1, -1]),
        ([1.0, None, float("nan")], [1, -1, -1]),
        ([0.5, 1, None], [0.5, 1.0, -1.0]),
        ([True, False, True], [1, 0, 1]),
        ([2**60 + 1, 1], [float(2**60), 1.0]),
        (["good", None, "bad"], ["good", "", "bad"]),
        (["good", 1, ""], ["good", "1", ""]),
        ([None, None], [-1, -1]),
        (["1_11", "11_1"], ["1_11", "11_1"]),
        (["+", "-", "N/A"], ["+", "-", ""]),
        (["1", "-nan", "+NaN"], [1, -1, -1]),
        (["1", " NA ", " "], [1, -1, -1]),
        (["1", "null", "NULL"], [1, -1, -1]),
        (["some", "none", "missing"], ["some", "none", "missing"]),
        ([1, 10**400], ["1", str(10**400)]),
    ],
)
def test_labels_are_numbers_where_all_read_as_numbers(labels, expected):
    found = column(labels).to_array()
    assert found.tolist() == expected
    assert found.dtype == np.array(expected).dtype


def column(labels):
    gathered = LabelColumn()
    for label in labels:
        gathered.append(label)
    return gathered


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 2, 3, 4], [0, 0, 0, 1, 1]),
        ([1, 2, 3, 4], [0, 0, 1, 1]),
        ([1, 2, 3, 4, 5], [0, 0, 0, 1, 1]),
        ([-1, 0, 1], [0, 0, 1]),
        ([1, 1, 1], [1, 1, 1]),
        ([0.1, 0.2, 0.3], [0, 0, 1]),
        ([], []),
    ],
)
def test_labels_are_binarized_at_the_middle(labels, expected):
    assert binarized(np.array(labels)).tolist() == expected
    assert column([*labels, None]).to_array(binarize=True).tolist() == [*expected, -1]


def test_a_label_that_means_missing_is_refused_beside_missing_ones():
    assert column([-1, 1]).to_array().tolist() == [-1, 1]
    with pytest.raises(ValueError, match="have the label -1 and some have none"):
        column([-1, None]).to_array()


def test_strings_are_not_binarized(tmp_path, cache):
    write(tmp_path / "a.jsonl", [("x", "good")])
    with pytest.raises(ValueError, match="needs numbers as labels, got 'good'"):
        TextCorpus.from_file(
            tmp_path / "a.jsonl", label_key="label", binarize_labels=True, cache_dir=cache
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_unlabeled": True}, "drop_unlabeled=True needs labels"),
        ({"binarize_labels": True}, "binarize_labels=True needs labels"),
        ({"preprocessor": "nothing"}, "Unknown preprocessor 'nothing'"),
        ({"text_key": "text"}, "no key 'text'"),
    ],
)
def test_wrong_options_are_refused_and_leave_nothing(source, cache, options, message):
    with pytest.raises(ValueError, match=message):
        TextCorpus.from_file(source, cache_dir=cache, **options)
    assert not cache.exists() or folders(cache) == []


def test_nothing_left_or_nothing_given_is_refused(tmp_path, cache):
    write(tmp_path / "a.jsonl", [("x", None)])
    with pytest.raises(ValueError, match="leaves nothing: no document has a 'label'"):
        TextCorpus.from_file(
            tmp_path / "a.jsonl", label_key="label", drop_unlabeled=True, cache_dir=cache
        )
    with pytest.raises(ValueError, match="got an empty list"):
        TextCorpus.from_file([], cache_dir=cache)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, cache):
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        TextCorpus.from_file(tmp_path / "b.txt", cache_dir=cache)
    with pytest.raises(IsADirectoryError, match=r"folder\.txt"):
        TextCorpus.from_file(tmp_path / "folder.txt", cache_dir=cache)
    assert folders(cache) == []


@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
@pytest.mark.parametrize("name", ["documents.bin", "offsets.npy", "labels.npy"])
def test_a_corpus_that_is_cut_short_is_refused_and_made_anew_once_removed(
    source, cache, name, share
):
    options = {"label_key": "label", "cache_dir": cache}
    expected = TextCorpus.from_file(source, **options).fingerprint()
    (folder,) = folders(cache)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"is damaged.*: remove the folder and try") as raised:
        TextCorpus.from_file(source, **options)
    assert str(folder) in str(raised.value)
    shutil.rmtree(folder)
    assert TextCorpus.from_file(source, **options).fingerprint() == expected


def test_what_is_in_the_cache_is_not_read_again(source, cache, monkeypatch):
    first = TextCorpus.from_file(source, cache_dir=cache)
    with monkeypatch.context() as patch:
        patch.setattr(building, "_write", no_reading)
        # A cache that cannot be written to will do for what is in it.
        patch.setattr(building, "FileLock", no_reading)
        again = TextCorpus.from_file([str(source)], cache_dir=cache)
    assert list(again) == list(first)


@pytest.mark.parametrize(
    "options", [{"preprocessor": None}, {"label_key": "label"}, {"decode_error": "ignore"}]
)
def test_other_options_are_another_corpus(source, cache, options):
    TextCorpus.from_file(source, cache_dir=cache)
    TextCorpus.from_file(source, cache_dir=cache, **options)
    assert len(folders(cache)) == 2


def test_a_changed_file_is_another_corpus(source, cache):
    old = TextCorpus.from_file(source, cache_dir=cache)
    n_bytes, modified = source.stat().st_size, source.stat().st_mtime_ns
    source.write_text(source.read_text().replace("one", "two"))
    os.utime(source, ns=(modified, modified + 1))
    assert source.stat().st_size == n_bytes

    new = TextCorpus.from_file(source, cache_dir=cache)

    assert (old[0], new[0]) == (b"\n one ", b"\n two ")


def test_a_file_that_changes_while_it_is_read_is_refused(source, cache, monkeypatch):
    monkeypatch.setattr(building, "is_missing", lambda label: source.touch() or False)
    os.utime(source, ns=(0, 0))
    with pytest.raises(OSError, match=r"reviews\.jsonl changed while it was read"):
        TextCorpus.from_file(source, label_key="label", drop_unlabeled=True, cache_dir=cache)
    assert folders(cache) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("preprocessor", ["review", str.encode])
def test_a_build_that_fails_leaves_nothing(source, cache, monkeypatch, error, preprocessor):
    def fail(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(building.np, "save", fail)
        with pytest.raises(type(error)) as raised:
            TextCorpus.from_file(source, preprocessor=preprocessor, cache_dir=cache)

    assert str(cache) in raised.value.__notes__[-1]
    assert folders(cache) == []
    assert len(TextCorpus.from_file(source, cache_dir=cache)) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_nothing_and_is_forgotten(source, cache, monkeypatch):
    def open_on_full_disk(_, *args, **options):
        return open("/dev/full", *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(building, "open", open_on_full_disk, raising=False)
        with pytest.raises(OSError, match="No space left") as raised:
            TextCorpus.from_file(source, cache_dir=cache)

    assert f"in {cache} (cache_dir=)" in raised.value.__notes__[-1]
    assert folders(cache) == []
    assert len(TextCorpus.from_file(source, cache_dir=cache)) == 4


def test_what_a_killed_build_left_does_not_pass_and_is_removed(source, cache, fork):
    def build_and_die():
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)  # in the fork alone
        TextCorpus.from_file(source, cache_dir=cache)

    assert fork(build_and_die) == -signal.SIGKILL
    (left,) = folders(cache)
    assert (left / "documents.bin").exists()
    of_another, alive = cache / ".another-1.part", cache / ".alive-1.part"
    of_another.mkdir()
    of_another.with_suffix(".lock").touch()
    alive.mkdir()

    with FileLock(alive.with_suffix(".lock")):
        corpus = TextCorpus.from_file(source, cache_dir=cache)

    assert len(corpus) == 4
    assert not left.exists()
    assert not of_another.exists()
    assert alive.exists()


WAIT_FOR_A_BUILD = """
import sys
from skdiscovery.text import building, TextCorpus

lock = building._lock

def say_and_lock(part, timeout=-1):
    if timeout == -1:
        print("waiting", flush=True)
    return lock(part, timeout)

building._lock = say_and_lock
building._write = None
print(len(TextCorpus.from_file(sys.argv[1], cache_dir=sys.argv[2])))
"""


def test_of_two_processes_one_builds_and_the_other_waits(source, cache, monkeypatch):
    write_corpus = building._write
    command = [sys.executable, "-c", WAIT_FOR_A_BUILD, str(source), str(cache)]
    others = []

    def write_while_another_waits(*args):
        others.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert others[0].stdout.readline() == "waiting\n"
        write_corpus(*args)

    monkeypatch.setattr(building, "_write", write_while_another_waits)
    assert len(TextCorpus.from_file(source, cache_dir=cache)) == 4

    (other,) = others
    assert other.communicate(timeout=30)[0] == "4\n"
    assert other.returncode == 0
    assert len(folders(cache)) == 1


def test_a_folder_that_cannot_be_written_to_is_an_error_that_helps(source, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(OSError, match=r"cannot be written: .*cache_dir="):
        TextCorpus.from_file(source, cache_dir=blocked / "cache")

    def read_only(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(building.FileLock, "acquire", read_only)
    with pytest.raises(OSError, match=r"cannot be written: .*Permission denied.*cache_dir="):
        TextCorpus.from_file(source, cache_dir=tmp_path)


def test_the_default_cache_is_in_the_data_home(source, tmp_path, monkeypatch):
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    TextCorpus.from_file(source)
    (folder,) = folders(tmp_path / "home" / "skdiscovery" / "corpora")
    assert folder.name.startswith("reviews-")
    assert json.loads((folder / "recipe.json").read_text())["preprocessor"] == "review"


def test_a_function_is_called_anew_and_its_corpus_goes_with_it(source, cache):
    corpora = [
        TextCorpus.from_file(source, preprocessor=lambda text, i=i: b"%d" % i, cache_dir=cache)
        for i in range(2)
    ]
    assert [corpus[0] for corpus in corpora] == [b"0", b"1"]
    part = corpora[0][1:]
    del corpora
    gc.collect()
    (folder,) = folders(cache)
    assert list(pickle.loads(pickle.dumps(part))) == [b"0"] * 3

    del part
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("part", [slice(None), slice(1, 3), [2, 0]], ids=str)
def test_a_corpus_on_disk_is_pickled_by_its_path(tmp_path, cache, part):
    write(tmp_path / "a.jsonl", [(f"{i} " * 1000, i) for i in range(10)])
    corpus = TextCorpus.from_file(tmp_path / "a.jsonl", label_key="label", cache_dir=cache)
    for given in (corpus, corpus[part]):
        pickled = pickle.dumps(given)
        copy = pickle.loads(pickled)

        assert len(pickled) < 1000
        assert list(copy) == list(given)
        np.testing.assert_array_equal(copy.labels, given.labels)
        assert joblib.hash(copy) == joblib.hash(given)


def test_a_corpus_in_memory_is_pickled_with_what_is_its():
    corpus = TextCorpus.from_documents(["x" * 1000, "y"], labels=["a", "b"])

    assert list(pickle.loads(pickle.dumps(corpus))) == list(corpus)
    part = pickle.dumps(corpus[1:])
    assert list(pickle.loads(part)) == [b"\n y "]
    assert pickle.loads(part).labels == ["b"]
    assert len(part) < 1000


@pytest.mark.parametrize(
    ("preprocessor", "name"), [("openai", "openai"), (None, None), (str.encode, None)], ids=str
)
def test_a_corpus_knows_its_preprocessor_by_name(source, cache, preprocessor, name):
    corpora = [
        TextCorpus.from_file(source, preprocessor=preprocessor, cache_dir=cache),
        TextCorpus.from_documents(["x", "y"], preprocessor=preprocessor),
    ]
    for corpus in corpora:
        for same in (corpus, corpus[1:], pickle.loads(pickle.dumps(corpus[1:]))):
            assert same.preprocessor == name


def test_a_pickle_says_when_its_corpus_is_gone(source, cache):
    pickled = pickle.dumps(TextCorpus.from_file(source, cache_dir=cache))
    (folder,) = folders(cache)
    documents = folder / "documents.bin"

    documents.write_bytes(documents.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is damaged: remove the folder"):
        pickle.loads(pickled)
    folder.rename(Path(f"{folder}-away"))
    with pytest.raises(FileNotFoundError, match="is gone: make it again"):
        pickle.loads(pickled)


def test_a_home_folder_may_be_written_as_a_tilde(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    TextCorpus.from_file("~/reviews.jsonl", cache_dir="~/cache")
    assert len(folders(tmp_path / "cache")) == 1


def test_a_pickle_of_a_corpus_in_a_relative_cache_outlasts_a_change_of_folder(
    source, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    corpus = TextCorpus.from_file("reviews.jsonl", cache_dir="cache")
    pickled = pickle.dumps(corpus)
    monkeypatch.chdir("/")
    assert list(pickle.loads(pickled)) == list(corpus)


def test_relative_paths_of_two_folders_are_two_corpora(tmp_path, cache, monkeypatch):
    for text in ("one", "two"):
        folder = tmp_path / text
        folder.mkdir()
        monkeypatch.chdir(folder)
        Path("a.txt").write_text(text)
        os.utime("a.txt", ns=(0, 0))
        assert TextCorpus.from_file("a.txt", cache_dir=cache)[0] == f"\n {text} ".encode()


def test_a_file_of_another_length_and_the_same_date_is_another_corpus(source, cache):
    TextCorpus.from_file(source, cache_dir=cache)
    modified = source.stat().st_mtime_ns
    source.write_text(source.read_text().replace("one", "three"))
    os.utime(source, ns=(modified, modified))
    assert TextCorpus.from_file(source, cache_dir=cache)[0] == b"\n three "


@pytest.mark.parametrize(
    ("name", "value"), [("FORMAT_VERSION", -1), ("version", lambda package: f"another {package}")]
)
def test_what_another_version_would_build_is_another_corpus(
    source, cache, monkeypatch, name, value
):
    TextCorpus.from_file(source, cache_dir=cache)
    monkeypatch.setattr(building, name, value)
    TextCorpus.from_file(source, cache_dir=cache)
    assert len(folders(cache)) == 2


def test_a_file_may_have_a_long_name(tmp_path, cache):
    path = tmp_path / f"{'x' * 240}.txt"
    path.write_text("one")
    assert len(TextCorpus.from_file(path, cache_dir=cache)) == 1


def test_a_fork_does_not_remove_the_corpus_of_its_parent(source, cache):
    corpus = TextCorpus.from_file(source, preprocessor=str.encode, cache_dir=cache)
    child = os.fork()
    if child == 0:
        del corpus
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(folders(cache)) == 1


@pytest.mark.parametrize("name", ["offsets.npy", "labels.npy"])
def test_files_that_do_not_belong_together_are_refused(source, cache, name):
    options = {"label_key": "label", "cache_dir": cache}
    corpus = TextCorpus.from_file(source, **options)
    (folder,) = folders(cache)
    other = {"offsets.npy": np.maximum(corpus.offsets, 1), "labels.npy": np.zeros(3)}
    np.save(folder / name, other[name])
    with pytest.raises(ValueError, match="is damaged: remove the folder"):
        TextCorpus.from_file(source, **options)


def test_documents_longer_than_their_offsets_are_refused(source, cache):
    TextCorpus.from_file(source, cache_dir=cache)
    (folder,) = folders(cache)
    with (folder / "documents.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="is damaged: remove the folder"):
        TextCorpus.from_file(source, cache_dir=cache)


def test_nobody_can_write_to_a_corpus_on_disk(source, cache):
    TextCorpus.from_file(source, label_key="label", cache_dir=cache)
    (folder,) = folders(cache)
    for array in building.load(folder):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_corpus_of_a_function_is_by_default_in_the_folder_for_temporary_files(
    source, tmp_path, monkeypatch
):
    monkeypatch.setattr(building.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    corpus = TextCorpus.from_file(source, preprocessor=str.encode)
    assert len(folders(tmp_path / "temporary")) == 1
    assert not (tmp_path / "home").exists()
    del corpus


def test_files_are_whole_when_they_are_sent_to_the_disk(source, cache, monkeypatch):
    sizes = []
    monkeypatch.setattr(building.os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    TextCorpus.from_file(source, label_key="label", cache_dir=cache)
    (folder,) = folders(cache)
    assert sorted(sizes) == sorted(path.stat().st_size for path in folder.iterdir())


def test_a_corpus_is_mapped_and_not_read(source, cache):
    TextCorpus.from_file(source, label_key="label", cache_dir=cache)
    (folder,) = folders(cache)
    assert all(isinstance(array.base, np.memmap) for array in building.load(folder))


def test_what_a_build_left_that_died_just_now_is_no_obstacle(source, cache, monkeypatch):
    expected = TextCorpus.from_file(source, cache_dir=cache).fingerprint()
    (folder,) = folders(cache)
    folder.rename(cache / f".{folder.name}.part")
    monkeypatch.setattr(building, "_remove_leftovers", lambda cache: None)
    assert TextCorpus.from_file(source, cache_dir=cache).fingerprint() == expected
    assert folders(cache) == [folder]


def test_what_others_write_beside_the_corpora_is_left_alone(source, tmp_path):
    with whole_file(tmp_path / "model.bin") as unfinished:
        TextCorpus.from_file(source, cache_dir=tmp_path)
        assert unfinished.parent.exists()
    assert not list(tmp_path.glob(".model.bin*"))
