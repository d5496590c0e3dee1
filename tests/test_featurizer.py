import copy
import io
import pickle
import re
import warnings
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer
from skdiscovery import featurizer as featurizer_module
from skdiscovery.datasets import load_reviews
from skdiscovery.inference import encoding, ragged
from skdiscovery.nn.weights import is_locked

HIDDEN_SIZE = 24
POOLINGS = ("last", "mean", "max")
TEXTS = ["I loved it.", "I did not.", "", "Café noir"]


def train(random_state=0, **params):
    """A language model of a single step: not wise, but fitted. Bytes are read as they are."""
    params = {"hidden_size": HIDDEN_SIZE, "embedding_size": 8, "preprocessor": None} | params
    model = ByteMLSTMLanguageModel(
        batch_size=2, seq_length=8, max_steps=1, device="cpu", random_state=random_state, **params
    )
    return model.fit(["a text to learn from, and another"])


@pytest.fixture(scope="module")
def lm():
    return train()


@pytest.fixture(scope="module")
def deep_lm():
    return train(n_layers=2)


def fit(lm, **params):
    return MLSTMFeaturizer(lm, device="cpu", **params).fit()


def repickled(featurizer):
    return pickle.loads(pickle.dumps(featurizer))


def through_joblib(featurizer):
    file = io.BytesIO()
    joblib.dump(featurizer, file)
    return joblib.load(file)


every_copy = pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, repickled, through_joblib]
)


def assert_same_vectors(got, expected, tolerance):
    assert (np.abs(got - expected) <= tolerance * np.maximum(1, np.abs(expected))).all()


LENGTHS = (0, 1, 63, 64, 65, 5000)
DOCUMENTS = [np.random.default_rng(length).bytes(length) for length in LENGTHS]


@pytest.fixture(
    scope="module",
    # Sums in another order may round a state of few bits to its neighbour.
    params=[("float32", 1e-5), ("float64", 1e-10), ("bfloat16", 1e-2), ("int8", 1e-2)],
)
def alone(request, lm):
    """A featurizer of all poolings, its vectors of single documents, and the tolerance."""
    precision, tolerance = request.param
    featurizer = fit(lm, pooling=POOLINGS, precision=precision)
    vectors = [featurizer.transform([document])[0] for document in DOCUMENTS]
    return featurizer, vectors, tolerance


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(
    order=st.lists(st.sampled_from(range(len(LENGTHS))), min_size=1, max_size=8),
    neighbours=st.lists(st.binary(max_size=100), max_size=8),
    batch_bytes=st.sampled_from([1, 70, 6_000, "auto"]),
    max_state_bytes=st.sampled_from([HIDDEN_SIZE * 4 * 63, 20_000, 2**24]),
)
def test_a_text_has_one_vector(alone, order, neighbours, batch_bytes, max_state_bytes):
    featurizer, vectors, tolerance = alone
    featurizer = clone(featurizer).set_params(batch_bytes=batch_bytes).fit()
    documents = [*neighbours, *(DOCUMENTS[k] for k in order)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "read", partial(ragged.read, max_state_bytes=max_state_bytes))
        together = featurizer.transform(documents)[len(neighbours) :]
    assert_same_vectors(together, np.array([vectors[k] for k in order]), tolerance)


def test_a_chunk_of_one_step_changes_nothing(alone, monkeypatch):
    featurizer, vectors, tolerance = alone
    monkeypatch.setattr(encoding, "read", partial(ragged.read, max_state_bytes=1))
    assert_same_vectors(featurizer.transform(DOCUMENTS[:-1]), np.array(vectors[:-1]), tolerance)


@pytest.mark.parametrize("state", ["cell", "hidden"])
@pytest.mark.parametrize("layer", [-1, 0, 1, -2])
def test_vectors_are_pooled_activations(deep_lm, state, layer):
    texts = [text for text in TEXTS if text]
    vectors = fit(deep_lm, pooling=POOLINGS, state=state, layer=layer).transform(texts)
    assert vectors.dtype == np.float32
    for vector, trace in zip(
        vectors, deep_lm.activations(texts, state=state, layer=layer), strict=True
    ):
        expected = np.concatenate([trace[-1], trace.mean(axis=0), trace.max(axis=0)])
        assert_same_vectors(vector, expected, 1e-5)


def test_layers_and_states_differ(deep_lm):
    vectors = [
        fit(deep_lm, state=state, layer=layer).transform(TEXTS)
        for state in ("cell", "hidden")
        for layer in (0, 1)
    ]
    for k, one in enumerate(vectors):
        assert all(not np.allclose(one, other) for other in vectors[k + 1 :])


def test_an_empty_text_has_the_zero_vector(lm):
    vectors = fit(lm, pooling=POOLINGS).transform(["", "x", ""])
    assert not vectors[[0, 2]].any()
    assert vectors[1].any()


def test_no_texts_no_rows(lm):
    assert fit(lm, pooling=("last", "max")).transform([]).shape == (0, 2 * HIDDEN_SIZE)


def test_equal_texts_are_read_once_and_returned_in_order(lm, encoded):
    featurizer = fit(lm)
    vectors = featurizer.transform(["b", "a", "b", "", "a", b"b"])
    assert sorted(encoded) == [b"", b"a", b"b"]
    by_text = {text: featurizer.transform([text])[0] for text in ("a", "b", "")}
    for vector, text in zip(vectors, ["b", "a", "b", "", "a", "b"], strict=True):
        assert_same_vectors(vector, by_text[text], 1e-6)


@pytest.mark.parametrize(
    "container", [list, tuple, np.array, iter, pd.Series, pd.DataFrame, lambda x: pd.Index(x)]
)
def test_texts_come_in_many_containers(lm, container):
    featurizer = fit(lm)
    got = featurizer.transform(container(TEXTS))
    np.testing.assert_array_equal(got, featurizer.transform(TEXTS))


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("auto", ("last",)),
        ("mean", ("mean",)),
        (("max", "last"), ("max", "last")),
        (["mean"], ("mean",)),
    ],
)
def test_poolings_stand_side_by_side(lm, pooling, expected):
    featurizer = fit(lm, pooling=pooling)
    assert featurizer.pooling_ == expected
    parts = [fit(lm, pooling=name).transform(TEXTS) for name in expected]
    np.testing.assert_array_equal(featurizer.transform(TEXTS), np.hstack(parts))


@pytest.mark.parametrize("recommended", ["mean", ["last", "max"]])
def test_auto_is_what_the_model_recommends(recommended):
    lm = train()
    lm.config_["pooling"] = recommended
    featurizer = fit(lm)
    assert featurizer.pooling_ == tuple([recommended] if recommended == "mean" else recommended)
    assert fit(lm, pooling="max").pooling_ == ("max",)


def test_neurons_are_columns_of_the_whole(lm):
    neurons = [7, 0, 23]
    featurizer = fit(lm, pooling=("mean", "last"), neurons=neurons)
    whole = fit(lm, pooling=("mean", "last")).transform(TEXTS)
    columns = [*neurons, *(HIDDEN_SIZE + np.array(neurons))]
    assert_same_vectors(featurizer.transform(TEXTS), whole[:, columns], 1e-6)
    assert featurizer.feature_neurons_.tolist() == neurons * 2


def test_names_tell_pooling_state_and_neuron(lm):
    featurizer = fit(lm, pooling=("last", "mean"), neurons=[2, 5], state="hidden")
    names = featurizer.get_feature_names_out()
    assert names.dtype == object
    expected = ["last_hidden_2", "last_hidden_5", "mean_hidden_2", "mean_hidden_5"]
    assert names.tolist() == expected
    whole = fit(lm).get_feature_names_out()
    assert whole.tolist() == [f"last_cell_{k}" for k in range(HIDDEN_SIZE)]


def test_pandas_output_keeps_the_index_of_a_series(lm):
    featurizer = fit(lm, neurons=[2, 5]).set_output(transform="pandas")
    series = pd.Series(TEXTS, index=["w", "x", "y", "z"])
    frame = featurizer.transform(series)
    pd.testing.assert_index_equal(frame.index, series.index)
    pd.testing.assert_index_equal(featurizer.transform(series.to_frame()).index, series.index)
    assert frame.columns.tolist() == ["last_cell_2", "last_cell_5"]
    assert (frame.dtypes == np.float32).all()
    for texts in (TEXTS, np.array(TEXTS), iter(TEXTS)):
        pd.testing.assert_frame_equal(featurizer.transform(texts), frame.reset_index(drop=True))


def test_it_reads_a_column_of_a_table(lm):
    table = pd.DataFrame({"stars": [1, 2, 3, 4], "review": TEXTS}, index=["w", "x", "y", "z"])
    columns = ColumnTransformer(
        [("text", MLSTMFeaturizer(lm, neurons=[2, 5]), "review")], remainder="passthrough"
    ).set_output(transform="pandas")
    frame = columns.fit_transform(table)
    expected = ["text__last_cell_2", "text__last_cell_5", "remainder__stars"]
    assert columns.get_feature_names_out().tolist() == frame.columns.tolist() == expected
    assert frame.index.tolist() == table.index.tolist()


def test_precision(lm):
    exact = fit(lm, precision="float64").transform(TEXTS)
    assert exact.dtype == np.float64
    single = fit(lm, precision="float32").transform(TEXTS)
    assert single.dtype == np.float32
    assert_same_vectors(single, exact, 1e-5)


@pytest.mark.parametrize("state", ["cell", "hidden"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_bfloat16_gives_float32_vectors(lm, state, pooling):
    options = {"state": state, "pooling": pooling}
    vectors = fit(lm, precision="bfloat16", **options).transform(TEXTS)
    assert vectors.dtype == np.float32
    exact = fit(lm, precision="float64", **options).transform(TEXTS)
    assert np.linalg.norm(vectors - exact) <= 2e-2 * np.linalg.norm(exact)


@pytest.mark.parametrize("params", [{}, {"cell": "lstm", "n_layers": 2}], ids=str)
def test_int8_gives_float32_vectors(params):
    vectors = {
        precision: fit(train(**params), precision=precision).transform(TEXTS)
        for precision in ("int8", "float64")
    }
    assert vectors["int8"].dtype == np.float32
    difference = np.linalg.norm(vectors["int8"] - vectors["float64"])
    assert 0 < difference <= 2e-2 * np.linalg.norm(vectors["float64"])


def test_int8_correlates_with_float32_in_the_model_that_ships():
    texts = [text[:100] for text in load_reviews().data[:40]]
    int8, float32 = (
        MLSTMFeaturizer(device="cpu", precision=precision).fit_transform(texts)
        for precision in ("int8", "float32")
    )
    assert 0.999 <= np.corrcoef(int8.ravel(), float32.ravel())[0, 1] < 1 - 1e-9


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_what_torch_is_set_to_for_something_else_changes_nothing(
    deep_lm, surroundings, precision, backend
):
    featurizer = fit(deep_lm, precision=precision, backend=backend, pooling=["last", "mean", "max"])
    expected = featurizer.transform(TEXTS)
    with surroundings():
        np.testing.assert_array_equal(featurizer.transform(TEXTS), expected)


def test_a_clone_shares_the_language_model(lm):
    weights = {name: array.copy() for name, array in lm.weights_.items()}
    featurizer = fit(lm, neurons=[1], memory=None)
    other = clone(clone(featurizer))
    assert other.language_model is lm
    assert other.neurons == [1]
    assert not hasattr(other, "language_model_")
    assert other.fit().language_model_ is lm
    pipeline = clone(make_pipeline(featurizer, LogisticRegression()))
    assert pipeline[0].language_model is lm
    scores = cross_val_score(pipeline, TEXTS * 3, [0, 1, 0, 1] * 3, cv=3, error_score="raise")
    assert len(scores) == 3
    for name, array in lm.weights_.items():
        np.testing.assert_array_equal(array, weights[name])


def test_clones_that_read_one_file_share_its_weights(lm, tmp_path):
    lm.save_pretrained(tmp_path / "lm.safetensors")
    featurizer = fit(tmp_path / "lm.safetensors")
    weights = featurizer.language_model_.weights_
    others = clone(featurizer).fit().language_model_.weights_
    assert all(others[name] is array for name, array in weights.items())


def test_a_clone_keeps_the_output_container(lm):
    other = clone(fit(lm, neurons=[1]).set_output(transform="pandas")).fit()
    assert isinstance(other.transform(TEXTS), pd.DataFrame)


def test_a_file_and_the_model_in_it_give_the_same(lm, tmp_path):
    path = tmp_path / "model.safetensors"
    lm.save_pretrained(path)
    expected = fit(lm).transform(TEXTS)
    for name in (path, str(path)):
        featurizer = fit(name)
        np.testing.assert_array_equal(featurizer.transform(TEXTS), expected)
        assert featurizer.language_model == name


def test_what_is_frozen_must_be_a_language_model():
    with pytest.raises(TypeError, match="Expected a frozen ByteMLSTMLanguageModel"):
        fit(FrozenEstimator(MLSTMFeaturizer()))


def test_a_model_that_it_loads_computes_where_it_does(lm):
    assert MLSTMFeaturizer(device="cpu").fit().language_model_.device == "cpu"
    assert MLSTMFeaturizer().fit().language_model_.device == "auto"


def test_the_models_own_preprocessor_reads_the_texts(lm):
    framing = train(preprocessor="review")
    framing.weights_ = lm.weights_
    vectors = fit(framing).transform(["good", "<b>good</b>"])
    expected = fit(lm).transform(["\n good "] * 2)
    np.testing.assert_array_equal(vectors, expected)


def test_an_unfitted_language_model_is_refused():
    with pytest.raises(NotFittedError, match="ByteMLSTMLanguageModel"):
        fit(ByteMLSTMLanguageModel())


def test_an_unfitted_featurizer_is_refused(lm):
    for method in ("transform", "get_feature_names_out"):
        with pytest.raises(NotFittedError, match="MLSTMFeaturizer"):
            getattr(MLSTMFeaturizer(lm), method)(TEXTS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"language_model": "no such model"}, "No language model 'no such model'"),
        ({"language_model": Path("no-such-file")}, "No language model 'no-such-file'"),
        ({"pooling": "median"}, "'pooling' parameter"),
        ({"pooling": ()}, "Unknown pooling"),
        ({"pooling": ("last", "median")}, "Unknown pooling .*'median'"),
        ({"pooling": ("last", "auto")}, "Unknown pooling"),
        ({"pooling": ("last", "mean", "last")}, r"\('last', 'mean', 'last'\)"),
        ({"layer": 1}, "Layer 1 is out of range"),
        ({"layer": -2}, "Layer -2 is out of range"),
        ({"layer": 0.5}, "'layer' parameter"),
        ({"neurons": [0, HIDDEN_SIZE]}, f"Neuron {HIDDEN_SIZE} is out of range"),
        ({"neurons": [-1]}, "Neuron -1 is out of range"),
        ({"pooling": [["mean"]]}, "Unknown pooling"),
        ({"neurons": [0.5]}, "list of whole numbers"),
        ({"neurons": []}, "list of whole numbers"),
        ({"neurons": [3, 1, 3]}, r"each neuron once, got neurons=\[3, 1, 3\]"),
        ({"state": "gate"}, "'state' parameter"),
        ({"batch_bytes": 0}, "'batch_bytes' parameter"),
        ({"memory_bytes": 0}, "'memory_bytes' parameter"),
        ({"precision": "float16"}, "'precision' parameter"),
        ({"backend": "tpu"}, "'backend' parameter"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(lm, params, message):
    with pytest.raises(ValueError, match=message):
        MLSTMFeaturizer(**{"language_model": lm} | params).fit()


def test_a_language_model_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="'language_model' parameter"):
        MLSTMFeaturizer(LogisticRegression()).fit()


def test_a_device_that_is_not_there_is_refused(lm):
    with pytest.raises(ValueError, match="Device 'gpu' is not available"):
        MLSTMFeaturizer(lm, device="gpu").fit_transform(TEXTS)


def test_a_layer_that_is_set_later_is_checked(lm):
    featurizer = MLSTMFeaturizer(lm, device=torch.device("cpu")).fit().set_params(layer=5)
    with pytest.raises(ValueError, match="Layer 5 is out of range"):
        featurizer.transform(TEXTS)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("a text", ValueError, "Iterable over raw text documents expected"),
        (b"a text", ValueError, "Iterable over raw text documents expected"),
        (None, TypeError, "Expected an iterable of str or bytes .*NoneType"),
        (3, TypeError, "Expected an iterable of str or bytes"),
        (["a", None], ValueError, "index 1 is missing"),
        (["a", float("nan")], ValueError, "index 1 is missing"),
        (["a", 3], TypeError, "index 1 is of type int"),
        ([["a"], ["b"]], TypeError, "index 0 is of type list"),
        (np.array([["a", "b"]]), ValueError, "one column"),
    ],
)
def test_what_is_not_texts_is_refused(lm, X, error, message):
    with pytest.raises(error, match=message):
        fit(lm).transform(X)


@pytest.mark.parametrize("kind", [str, Path, joblib.Memory], ids=lambda kind: kind.__name__)
def test_memory_computes_a_text_once(lm, tmp_path, encoded, kind):
    memory = kind(tmp_path, verbose=0) if kind is joblib.Memory else kind(tmp_path)
    expected = fit(lm).transform(TEXTS)
    encoded.clear()
    featurizer = fit(lm, memory=memory)
    np.testing.assert_array_equal(featurizer.transform(TEXTS), expected)
    assert len(encoded) == len(TEXTS)
    np.testing.assert_array_equal(featurizer.transform(TEXTS[::-1]), expected[::-1])
    np.testing.assert_array_equal(clone(featurizer).fit_transform(TEXTS), expected)
    assert len(encoded) == len(TEXTS)
    mixed = featurizer.transform(["new", *TEXTS, "new"])
    np.testing.assert_array_equal(mixed[1:-1], expected)
    assert encoded[len(TEXTS) :] == [b"new"]
    assert featurizer.memory is memory


def test_memory_without_a_place_keeps_nothing(lm, encoded):
    featurizer = fit(lm, memory=joblib.Memory(None))
    for _ in range(2):
        np.testing.assert_array_equal(featurizer.transform(TEXTS), fit(lm).transform(TEXTS))
    assert len(encoded) == 4 * len(TEXTS)


@pytest.mark.parametrize(
    "change",
    [
        {"pooling": "mean"},
        {"pooling": ("mean", "last")},
        {"state": "hidden"},
        {"layer": 0},
        {"neurons": [0, 1]},
        {"precision": "float64"},
        {"precision": "bfloat16"},
        {"precision": "int8"},
    ],
    ids=str,
)
def test_memory_tells_settings_apart(deep_lm, tmp_path, encoded, change):
    params = {"pooling": ("last", "mean"), "memory": tmp_path}
    fit(deep_lm, **params).transform(TEXTS)
    changed = fit(deep_lm, **params | change).transform(TEXTS)
    assert len(encoded) == 2 * len(TEXTS)
    again = fit(deep_lm, **params | change).transform(TEXTS)
    assert len(encoded) == 2 * len(TEXTS)
    assert again.dtype == changed.dtype
    np.testing.assert_array_equal(again, changed)


def test_memory_serves_any_batch_size(lm, tmp_path, encoded):
    fit(lm, memory=tmp_path, batch_bytes=1).transform(TEXTS)
    fit(lm, memory=tmp_path, layer=-1).transform(TEXTS)
    assert len(encoded) == len(TEXTS)


def test_memory_tells_weights_apart(tmp_path, encoded):
    one, other = train(0), train(1)
    featurizer = fit(one, memory=tmp_path)
    featurizer.transform(TEXTS)
    vectors = fit(other, memory=tmp_path).transform(TEXTS)
    assert len(encoded) == 2 * len(TEXTS)
    np.testing.assert_array_equal(vectors, fit(other).transform(TEXTS))
    one.weights_["head.bias"][0] += 1
    featurizer.transform(TEXTS)
    assert len(encoded) == 4 * len(TEXTS)


@pytest.fixture
def validated(monkeypatch):
    """A model that took so many bits per byte for held-out text, and has warned of nothing yet."""
    monkeypatch.setattr(featurizer_module, "_warned", set())

    def make(bits_per_byte, **params):
        model = train(**params)
        model.config_["bits_per_byte"] = bits_per_byte
        return model

    return make


NOISE = [np.random.default_rng(k).bytes(200) for k in range(30)]


def assert_silent(use, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use(*args)


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "int8"])
def test_texts_unlike_the_models_own_are_warned_of_with_the_numbers(validated, precision):
    lm = validated(2.5)
    bits = -lm.score(NOISE[:10])
    message = r"takes ([\d.]+) bits per byte .* 995 bytes\), and 2\.50 for held-out text"
    with pytest.warns(UserWarning, match=message) as caught:
        fit(lm, precision=precision).transform(NOISE[:10])
    assert float(re.search(message, str(caught[0].message))[1]) == pytest.approx(bits, abs=0.1)


@pytest.mark.parametrize("remembers", [False, True])
def test_texts_unlike_the_models_own_are_warned_of_once(validated, remembers, tmp_path):
    lm = validated(2.5)
    featurizer = fit(lm, memory=tmp_path if remembers else None)
    with pytest.warns(UserWarning, match="look unlike") as caught:
        featurizer.transform(NOISE)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert_silent(featurizer.transform, NOISE[:20])
    assert_silent(clone(featurizer).fit_transform, NOISE[:20])
    with pytest.warns(UserWarning, match="look unlike"):
        fit(validated(2.5, random_state=1)).transform(NOISE)


def test_texts_like_the_models_own_are_not_warned_of(validated):
    lm = validated(None)
    for more, is_like in ((0.9, True), (1.1, False)):
        lm.config_["bits_per_byte"] = -lm.score(NOISE) - more
        if is_like:
            assert_silent(fit(lm).transform, NOISE)
        else:
            with pytest.warns(UserWarning, match="look unlike"):
                fit(lm).transform(NOISE)


def test_too_little_text_is_not_judged(validated):
    featurizer = fit(validated(2.5))
    assert_silent(featurizer.transform, NOISE[:9])
    assert_silent(featurizer.transform, [bytes([k, j]) for k in range(40) for j in range(40)])
    assert_silent(featurizer.transform, [])


def test_a_model_that_does_not_know_its_own_loss_does_not_judge(lm):
    assert "bits_per_byte" not in lm.config_
    assert_silent(fit(lm).transform, NOISE)


def test_what_memory_knows_is_not_judged_again(validated, tmp_path, monkeypatch):
    featurizer = fit(validated(2.5), memory=tmp_path)
    with pytest.warns(UserWarning, match="look unlike"):
        featurizer.transform(NOISE)
    monkeypatch.setattr(featurizer_module, "_warned", set())  # as in another process
    assert_silent(featurizer.transform, NOISE)


def test_memory_keeps_to_its_limit(lm, tmp_path, encoded):
    texts = [f"text number {n}" for n in range(1500)]
    featurizer = fit(lm, memory=tmp_path, memory_bytes=100_000)
    np.testing.assert_allclose(featurizer.transform(texts), fit(lm).transform(texts), atol=1e-6)
    (file,) = tmp_path.rglob("*.sqlite")
    assert file.stat().st_size <= 100_000
    encoded.clear()
    assert_same_vectors(featurizer.transform(texts), fit(lm).transform(texts), 1e-6)
    assert 1500 < len(encoded) < 3000  # of which 1500 without memory


def test_memory_keeps_what_was_read_before_the_reading_broke_off(lm, tmp_path, encoded):
    texts = [f"text number {n}" for n in range(20)]
    featurizer = fit(lm, memory=tmp_path, batch_bytes=70)
    with pytest.MonkeyPatch.context() as patch:
        read, n_left = encoding.read, iter(range(2, -1, -1))

        def break_off(*args, **kwargs):
            if next(n_left) == 0:
                raise KeyboardInterrupt
            return read(*args, **kwargs)

        patch.setattr(encoding, "read", break_off)
        with pytest.raises(KeyboardInterrupt):
            featurizer.transform(texts)
    encoded.clear()
    vectors = featurizer.transform(texts)
    assert 0 < len(encoded) < 20
    assert_same_vectors(vectors, fit(lm).transform(texts), 1e-6)


CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_param_validation",
    "check_parameters_default_constructible",
    "check_positive_only_tag_during_fit",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learn_checks_that_need_no_texts(lm, check):
    getattr(estimator_checks, check)("MLSTMFeaturizer", MLSTMFeaturizer(lm))


def test_parameters_of_the_language_model_are_not_the_featurizers(lm):
    featurizer = MLSTMFeaturizer(lm)
    assert featurizer.get_params(deep=True).keys() == featurizer.get_params(deep=False).keys()


def test_fit_changes_no_parameter(lm):
    featurizer = MLSTMFeaturizer(lm, pooling="auto", neurons=[3])
    before = featurizer.get_params()
    featurizer.fit(TEXTS, [0, 1, 0, 1])
    after = featurizer.get_params()
    assert all(after[name] is value for name, value in before.items())


def test_transform_changes_no_attribute(lm):
    featurizer = fit(lm)
    before = dict(vars(featurizer))
    featurizer.transform(TEXTS)
    assert vars(featurizer).keys() == before.keys()
    assert all(vars(featurizer)[name] is value for name, value in before.items())


@every_copy
def test_round_trips_give_the_same_vectors(lm, duplicate):
    featurizer = fit(lm, pooling=("last", "mean"), neurons=[3, 1])
    other = duplicate(featurizer)
    np.testing.assert_array_equal(other.transform(TEXTS), featurizer.transform(TEXTS))
    assert other.get_feature_names_out().tolist() == featurizer.get_feature_names_out().tolist()


@every_copy
def test_a_model_read_from_a_file_is_locked_in_copies_too(lm, duplicate, tmp_path):
    lm.save_pretrained(tmp_path / "model.safetensors")
    for model, locked in ((lm, False), (tmp_path / "model.safetensors", True)):
        weights = duplicate(fit(model)).language_model_.weights_
        assert all(is_locked(array) == locked for array in weights.values())
    assert not hasattr(duplicate(MLSTMFeaturizer(lm)), "language_model_")
    assert all(array.flags.writeable for array in lm.weights_.values())


def test_the_frozen_models_parameters_cannot_be_set(lm):
    with pytest.raises(ValueError, match="frozen"):
        MLSTMFeaturizer(lm).set_params(language_model__hidden_size=3)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 5e-2)])
def test_a_gpu_gives_the_vectors_of_a_cpu(lm, deep_lm, precision, tolerance):
    for model in (lm, deep_lm):
        on_cpu = fit(model, pooling=POOLINGS, precision="float64").transform(DOCUMENTS)
        on_gpu = MLSTMFeaturizer(model, pooling=POOLINGS, precision=precision, device="cuda").fit()
        vectors = on_gpu.transform(DOCUMENTS)
        assert_same_vectors(vectors, on_cpu, tolerance)
        assert_same_vectors(on_gpu.transform(DOCUMENTS[::-1])[::-1], vectors, tolerance)
