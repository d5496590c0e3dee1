"""Many readers at once: threads, processes, copies; and one copy of the weights for all of them."""

import copy
import os
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, SentimentNeuronClassifier

TEXTS = [f"A {word} film, number {n}." for n in range(12) for word in ("good", "bad")]
LABELS = ["pos", "neg"] * 12


@pytest.fixture(scope="module")
def lm():
    """A model whose matrices are large enough for joblib to share: beyond a megabyte."""
    return ByteMLSTMLanguageModel(
        516, embedding_size=4, batch_size=1, seq_length=4, max_steps=1, device="cpu", random_state=0
    ).fit(TEXTS)


@pytest.fixture(scope="module")
def featurizer(lm):
    return MLSTMFeaturizer(lm, pooling=("last", "mean"), device="cpu").fit()


@pytest.fixture(scope="module")
def workers():
    """Worker processes that are new, to which nothing says how many threads to take."""
    get_reusable_executor().shutdown(wait=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        yield
    get_reusable_executor().shutdown(wait=True)


def through_joblib(compress, mmap_mode):
    def copy_of(featurizer, folder):
        joblib.dump(featurizer, folder / "featurizer.joblib", compress=compress)
        return joblib.load(folder / "featurizer.joblib", mmap_mode=mmap_mode)

    return copy_of


def through_save_pretrained(featurizer, folder):
    featurizer.language_model_.save_pretrained(folder / "model.safetensors")
    read = MLSTMFeaturizer(folder / "model.safetensors", pooling=featurizer.pooling, device="cpu")
    return read.fit()


def through_skops(featurizer, folder):
    skops = pytest.importorskip("skops.io")
    skops.dump(featurizer, folder / "featurizer.skops")
    unknown = skops.get_untrusted_types(file=folder / "featurizer.skops")
    return skops.load(folder / "featurizer.skops", trusted=unknown)


@pytest.mark.parametrize(
    "copy_of",
    [
        through_joblib(0, None),
        through_joblib(3, None),
        through_joblib(("gzip", 1), None),
        through_joblib(0, "r"),
        through_joblib(0, "c"),
        lambda featurizer, folder: pickle.loads(pickle.dumps(featurizer)),
        lambda featurizer, folder: copy.deepcopy(featurizer),
        through_save_pretrained,
        through_skops,
    ],
    ids=[
        *("joblib", "zlib", "gzip", "mmap-r", "mmap-c"),
        *("pickle", "deepcopy", "save_pretrained", "skops"),
    ],
)
def test_a_copy_gives_the_very_same_vectors(featurizer, tmp_path, copy_of):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = copy_of(featurizer, tmp_path).transform(TEXTS)
    np.testing.assert_array_equal(got, featurizer.transform(TEXTS))


def test_a_model_that_is_mapped_for_reading_trains_on(lm, tmp_path):
    joblib.dump(lm, tmp_path / "lm.joblib")
    mapped = joblib.load(tmp_path / "lm.joblib", mmap_mode="r")
    assert isinstance(mapped.weights_["layers.0.wh"], np.memmap)
    before = {name: array.copy() for name, array in lm.weights_.items()}
    for model in (mapped, lm):
        model = copy.copy(model).set_params(warm_start=True).fit(TEXTS)
        assert not np.array_equal(model.weights_["layers.0.wh"], before["layers.0.wh"])
    for name, array in before.items():
        np.testing.assert_array_equal(lm.weights_[name], array)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_the_number_of_threads_changes_nothing_but_the_speed(featurizer, n_threads):
    expected = featurizer.transform(TEXTS)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        np.testing.assert_allclose(featurizer.transform(TEXTS), expected, rtol=0, atol=1e-6)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("remembers", [False, True])
def test_threads_may_share_a_featurizer(featurizer, tmp_path, remembers):
    if remembers:
        featurizer = copy.copy(featurizer).set_params(memory=tmp_path)
    shares = [TEXTS[k::6] for k in range(6)] * 3
    expected = [featurizer.transform(share) for share in shares]
    if remembers:
        featurizer.memory = tmp_path / "new"
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(featurizer.transform, shares))
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def mapping_of(array):
    """Return what Linux says of the pages of a memory-mapped array: kB by kind."""
    maps = Path("/proc/self/smaps").read_text()
    (start,) = re.findall(rf"^.*{re.escape(str(array.filename))}$", maps, re.MULTILINE)[:1]
    lines = maps[maps.index(start) :].splitlines()[1:25]
    return {name: int(n) for name, n in re.findall(r"^(\w+): +(\d+) kB$", "\n".join(lines), re.M)}


def read_and_look(featurizer, texts):
    """Transform in a worker; return what came out, and where the weights were."""
    weights = featurizer.language_model_.weights_["layers.0.wh"]
    assert isinstance(weights, np.memmap)
    vectors = featurizer.transform(texts)
    pages = mapping_of(weights)
    return vectors, os.getpid(), str(weights.filename), pages, torch.get_num_threads()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="looks at Linux's page tables")
def test_processes_share_one_copy_of_the_weights(featurizer, workers):
    found = joblib.Parallel(n_jobs=2, pre_dispatch=8, batch_size=1)(
        joblib.delayed(read_and_look)(featurizer, TEXTS) for _ in range(8)
    )
    _, processes, files, pages, n_threads = zip(*found, strict=True)
    for vectors, *_ in found:
        np.testing.assert_allclose(vectors, featurizer.transform(TEXTS), rtol=0, atol=1e-6)
    assert len(set(files)) == 1
    assert os.getpid() not in processes
    for kinds in pages:
        assert kinds["Anonymous"] == 0  # pages of the process's own
        assert kinds["Rss"] >= 1000
    # No more threads in all processes together than there are processors.
    assert all(2 * n <= max(2, os.cpu_count()) for n in n_threads)


def test_searches_and_scores_in_processes_are_those_of_one(lm, workers, tmp_path):
    pipeline = make_pipeline(
        MLSTMFeaturizer(lm, pooling="mean", device="cpu", memory=tmp_path / "memory"),
        SentimentNeuronClassifier(random_state=0),
    )
    grid = {"sentimentneuronclassifier__C": [0.5, 4.0]}
    alone, together = (
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs, error_score="raise").fit(TEXTS, LABELS)
        for n_jobs in (1, 2)
    )
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(alone.cv_results_[name], together.cv_results_[name])
    np.testing.assert_array_equal(alone.predict(TEXTS), together.predict(TEXTS))
    pipeline.set_params(mlstmfeaturizer__memory=None)
    alone, together = (
        cross_val_score(pipeline, TEXTS, LABELS, cv=2, n_jobs=n_jobs, error_score="raise")
        for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(alone, together)
    assert lm.weights_["layers.0.wh"].flags.writeable


def test_a_fork_reads_as_its_parent_does(featurizer, memory_growth):
    expected = featurizer.transform(TEXTS)

    def read_again():
        np.testing.assert_array_equal(featurizer.transform(TEXTS), expected)

    memory_growth(read_again)  # which fails where the fork does
