import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer, TextCorpus, transform_to_npy
from skdiscovery.ops.runtime import resolve_backend

TEXTS = [f"Film number {n}, {'good' if n % 3 else 'bad'}." for n in range(23)]


@pytest.fixture(scope="module")
def featurizer():
    model = ByteMLSTMLanguageModel(
        16, embedding_size=4, batch_size=2, seq_length=8, max_steps=1, device="cpu", random_state=0
    ).fit(TEXTS)
    return MLSTMFeaturizer(model, pooling=("last", "mean", "max"), device="cpu").fit()


@pytest.mark.parametrize("batch_size", [1, 5, 23, 24, 4096])
@pytest.mark.parametrize(
    "container", [list, iter, pd.Series, pd.DataFrame, TextCorpus.from_documents]
)
def test_the_file_has_what_transform_returns(tmp_path, featurizer, container, batch_size):
    path = tmp_path / "features.npy"
    got = transform_to_npy(featurizer, container(TEXTS), path, batch_size=batch_size)
    assert isinstance(got, np.memmap)
    assert not got.flags.writeable
    np.testing.assert_allclose(got, featurizer.transform(TEXTS), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(np.load(path), got)
    assert list(tmp_path.iterdir()) == [path]


def test_other_precisions_and_whole_pipelines(tmp_path, featurizer):
    exact = MLSTMFeaturizer(featurizer.language_model_, precision="float64", device="cpu")
    pipeline = make_pipeline(exact, StandardScaler()).set_output(transform="pandas").fit(TEXTS)
    got = transform_to_npy(pipeline, TEXTS, tmp_path / "features.npy", batch_size=7)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, pipeline.transform(TEXTS), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "nothing", [[], iter([]), TextCorpus.from_documents([])], ids=["list", "iterator", "corpus"]
)
def test_no_documents_no_rows(tmp_path, featurizer, nothing):
    assert transform_to_npy(featurizer, nothing, tmp_path / "features.npy").shape == (0, 48)


def test_a_corpus_is_not_preprocessed_once_more(tmp_path, featurizer):
    corpus = TextCorpus.from_documents(["a &amp; b"], preprocessor=None)
    got = transform_to_npy(featurizer, corpus, tmp_path / "features.npy")
    np.testing.assert_array_equal(got, featurizer.transform(corpus))
    assert not np.allclose(got, featurizer.transform(["a &amp; b"]))


@pytest.mark.parametrize(
    ("X", "batch_size", "error", "message"),
    [
        ("a text", 4, ValueError, "Iterable over raw text documents expected"),
        (3, 4, TypeError, "Expected an iterable of str or bytes"),
        (TEXTS, 0, ValueError, "batch_size=0"),
        ([*TEXTS[:9], None], 4, ValueError, "index 1 is missing"),
    ],
)
def test_what_cannot_be_transformed_leaves_what_was_there(
    tmp_path, featurizer, X, batch_size, error, message
):
    path = tmp_path / "features.npy"
    path.write_bytes(b"old")
    with pytest.raises(error, match=message) as raised:
        transform_to_npy(featurizer, X, path, batch_size=batch_size)
    if isinstance(X, list) and None in X:
        assert "begins at index 8" in raised.value.__notes__[0]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("last_step", [csr_array, np.ravel, lambda X: X.astype(object)])
def test_what_is_no_matrix_of_numbers_leaves_what_was_there(tmp_path, featurizer, last_step):
    path = tmp_path / "features.npy"
    path.write_bytes(b"old")
    pipeline = make_pipeline(featurizer, FunctionTransformer(last_step)).fit(TEXTS)
    with pytest.raises(TypeError, match="dense array, got an array of shape"):
        transform_to_npy(pipeline, TEXTS, path)
    assert path.read_bytes() == b"old"


def test_a_full_disk_leaves_what_was_there(small_disk, featurizer):
    folder = small_disk(40_960)
    (folder / "features.npy").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        transform_to_npy(featurizer, (f"{n}" for n in range(2000)), folder / "features.npy")
    assert (folder / "features.npy").read_bytes() == b"old"
    assert len(list(folder.iterdir())) == 1


def test_what_was_interrupted_goes_on_from_its_memory(tmp_path, featurizer, encoded):
    remembering = MLSTMFeaturizer(featurizer.language_model_, memory=tmp_path, device="cpu").fit()

    def break_off():
        yield from TEXTS[:12]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transform_to_npy(remembering, break_off(), tmp_path / "features.npy", batch_size=5)
    assert len(encoded) == 10
    encoded.clear()
    got = transform_to_npy(remembering, TEXTS, tmp_path / "features.npy", batch_size=5)
    assert len(encoded) == 13
    expected = MLSTMFeaturizer(featurizer.language_model_, device="cpu").fit_transform(TEXTS)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path, featurizer, memory_growth):
    def write(n):
        texts = (f"Text {k} of many." for k in range(n))
        features = transform_to_npy(featurizer, texts, tmp_path / f"{n}.npy")
        assert features.shape == (n, 48)

    few, many = (memory_growth(lambda n=n: write(n)) for n in (10_000, 200_000))
    assert (tmp_path / "200000.npy").stat().st_size > 38e6
    assert many < few + 30e6  # all features and texts would be 52 MB


@pytest.mark.skipif(resolve_backend() == "torch", reason="takes minutes without kernels")
def test_a_text_of_20_megabytes_takes_300_of_memory(memory_growth):
    model = ByteMLSTMLanguageModel(4, embedding_size=4, batch_size=1, seq_length=8, max_steps=1)
    featurizer = MLSTMFeaturizer(model.fit(TEXTS), pooling=("last", "mean", "max")).fit()
    sentence = (
        "I loved this café <br /> and the actors &amp; the music were great, a fine evening. "
    )
    text = (sentence * (20_000_000 // len(sentence) + 1))[:20_000_000]
    assert memory_growth(lambda: featurizer.transform([text])) < 300e6
