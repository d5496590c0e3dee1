import os
import subprocess
import sys

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import Pipeline

from skdiscovery import (
    ByteMLSTMLanguageModel,
    MLSTMFeaturizer,
    SentimentNeuronClassifier,
    TextCorpus,
    plot_heatmap,
)

NOUNS = ["film", "plot", "cast", "sound", "end", "start"]
TEXTS = [f"A {word} {noun}." for noun in NOUNS for word in ("good", "bad")]
LABELS = np.array(["pos", "neg"] * len(NOUNS))
GRID = {"classifier__C": [0.25, 1.0, 4.0]}


def train(hidden_size, random_state):
    model = ByteMLSTMLanguageModel(
        hidden_size, embedding_size=8, batch_size=4, seq_length=16, max_steps=3, device="cpu",
        random_state=random_state,
    )  # fmt: skip
    return model.fit(TEXTS)


@pytest.fixture(scope="module")
def lm():
    return train(16, random_state=0)


def make_pipeline(lm, **params):
    featurizer = MLSTMFeaturizer(lm, pooling="mean", device="cpu", **params)
    classifier = SentimentNeuronClassifier(10.0, random_state=0)
    return Pipeline([("featurizer", featurizer), ("classifier", classifier)])


@pytest.fixture(scope="module")
def pipeline(lm):
    return make_pipeline(lm).fit(TEXTS, LABELS)


def test_a_search_reads_each_document_once(lm, tmp_path, encoded):
    search = GridSearchCV(make_pipeline(lm, memory=str(tmp_path)), GRID, cv=3, error_score="raise")
    search.fit([*TEXTS, TEXTS[0]], [*LABELS, LABELS[0]])
    assert sorted(encoded) == sorted(lm.preprocess(TEXTS))
    assert search.best_estimator_[0].language_model_ is lm

    encoded.clear()
    search.predict(TEXTS)
    search.score(TEXTS[::-1], LABELS[::-1])
    assert encoded == []
    search.predict([*TEXTS, "Not seen yet."])
    assert encoded == [b"\n Not seen yet. "]


def test_a_search_over_featurizers(lm, tmp_path):
    other = train(100, random_state=1)
    other.save_pretrained(tmp_path / "other.safetensors")
    models = [FrozenEstimator(lm), FrozenEstimator(other), tmp_path / "other.safetensors"]
    search = GridSearchCV(
        make_pipeline(lm),
        {"featurizer__language_model": models, "featurizer__pooling": ["mean", "max"]},
        cv=3,
        error_score="raise",
    ).fit(TEXTS, LABELS)
    scores = search.cv_results_["mean_test_score"].reshape(3, 2)
    np.testing.assert_array_equal(scores[1], scores[2])
    assert (scores[0] != scores[1]).any()
    for model, of_model in zip((lm, other), scores, strict=False):
        for pooling, score in zip(("mean", "max"), of_model, strict=True):
            alone = make_pipeline(model).set_params(featurizer__pooling=pooling)
            assert cross_val_score(alone, TEXTS, LABELS, cv=3).mean() == score
    search.set_params(param_grid={"featurizer__language_model": [lm]})
    with pytest.raises(NotFittedError, match=r"give it files, or each model as .*FrozenEstimator"):
        search.fit(TEXTS, LABELS)


def test_memory_changes_no_score(lm, tmp_path):
    plain, remembered = (
        GridSearchCV(make_pipeline(lm, memory=memory), GRID, cv=3).fit(TEXTS, LABELS)
        for memory in (None, tmp_path)
    )
    np.testing.assert_array_equal(
        plain.cv_results_["mean_test_score"], remembered.cv_results_["mean_test_score"]
    )
    assert plain.best_params_ == remembered.best_params_


def test_cross_validation(lm):
    scores = cross_val_score(make_pipeline(lm), TEXTS, LABELS, cv=3, error_score="raise")
    assert scores.shape == (3,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_predictions_are_labels_in_the_order_of_the_texts(pipeline):
    predicted = pipeline.predict(TEXTS)
    assert set(predicted) <= {"pos", "neg"}
    np.testing.assert_array_equal(pipeline.predict(TEXTS[::-1]), predicted[::-1])
    np.testing.assert_array_equal(predicted, [pipeline.predict([text])[0] for text in TEXTS])


PREDICT_ELSEWHERE = """
import sys, joblib
pipeline = joblib.load(sys.argv[1])
print(*pipeline.predict(sys.argv[2:]))
"""


def test_another_process_predicts_the_same(pipeline, tmp_path):
    path = tmp_path / "pipeline.joblib"
    joblib.dump(pipeline, path)
    result = subprocess.run(
        [sys.executable, "-c", PREDICT_ELSEWHERE, str(path), *TEXTS],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == pipeline.predict(TEXTS).tolist()


@pytest.fixture
def search(lm):
    return GridSearchCV(make_pipeline(lm), GRID, cv=2).fit(TEXTS, LABELS)


@pytest.fixture(autouse=True)
def no_figures():
    yield
    plt.close("all")


def assert_shows(display, lm, neuron, sign=1):
    text = b"\n A good end. "
    assert display.text_bytes == text
    expected = sign * lm.activations(["A good end."], neurons=[neuron])[0][:, 0]
    np.testing.assert_allclose(np.ravel(display.values), expected, atol=1e-6)
    assert f"neuron {neuron}" in display.description


def test_heat_map_of_a_pipeline_and_of_a_search(pipeline, search, lm):
    for fitted, whole in ((pipeline, pipeline), (search, search.best_estimator_)):
        featurizer, classifier = whole[0], whole[-1]
        neuron = featurizer.feature_neurons_[classifier.neuron_indices_[0]]
        display = plot_heatmap(fitted, "A good end.")
        assert_shows(display, lm, neuron, classifier.neuron_sign_)


def test_heat_map_of_a_featurizer_and_of_a_language_model(pipeline, lm):
    for fitted in (pipeline, pipeline[0], lm):
        assert_shows(plot_heatmap(fitted, "A good end.", neuron=5), lm, 5)
    for fitted in (pipeline[0], lm):
        with pytest.raises(ValueError, match="Which neuron to show"):
            plot_heatmap(fitted, "A good end.")


@pytest.mark.parametrize("preprocessor", ["openai", "nvidia", "review", None])
def test_splitters_take_a_corpus_as_it_is(preprocessor):
    documents = [f"AT&amp;amp;T &amp;lt;3: film {k} is {['bad', 'good'][k % 2]}" for k in range(30)]
    if preprocessor is None:
        documents = [document.encode() for document in documents]
    lm = ByteMLSTMLanguageModel(
        8, preprocessor=preprocessor, batch_size=2, seq_length=16, device="cpu", random_state=0
    )
    corpus = TextCorpus.from_documents(documents, preprocessor=preprocessor)
    expected = cross_val_score(lm, documents, cv=3, error_score="raise")
    assert cross_val_score(lm, corpus, cv=3, error_score="raise").tolist() == expected.tolist()
    train, test = train_test_split(corpus, random_state=0)
    assert sorted([*train, *test]) == sorted(corpus)
    featurizer = MLSTMFeaturizer(lm.fit(corpus), device="cpu")
    pipeline = Pipeline([("featurizer", featurizer), ("classifier", LogisticRegression())])
    labels = [k % 2 for k in range(30)]
    expected = cross_val_score(pipeline, documents, labels, error_score="raise")
    assert cross_val_score(pipeline, corpus, labels, error_score="raise").tolist() == [*expected]
