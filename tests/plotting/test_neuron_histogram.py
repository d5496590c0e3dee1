import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiscovery import MLSTMFeaturizer, NeuronHistogramDisplay, SentimentNeuronClassifier

TEXTS = ["A lovely film.", "A dull film.", "I loved it.", "I was bored.", "Fine.", "Bad."] * 3
LABELS = ["good", "bad"] * 9


@pytest.fixture(scope="module", name="X")
def features():
    return np.random.default_rng(0).normal(size=(200, 8))


@pytest.fixture(scope="module")
def y(X):
    return np.where(X[:, 5] < 0.5, "praise", "blame")


@pytest.fixture(scope="module")
def classifier(X, y):
    return SentimentNeuronClassifier(random_state=0).fit(X, y)


@pytest.fixture(scope="module")
def pipeline():
    featurizer = MLSTMFeaturizer(neurons=[4, 2], pooling=("last", "max"), device="cpu")
    return make_pipeline(featurizer, SentimentNeuronClassifier(C=9.0)).fit(TEXTS, LABELS)


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_a_pipeline_of_the_classifier_alone(classifier, X, y):
    display = NeuronHistogramDisplay.from_estimator(make_pipeline(classifier), X, y)
    np.testing.assert_array_equal(display.values, X[:, 5])
    assert display.name == "neuron 5"


def test_values_that_are_nearly_equal():
    values = np.float32([1, 1 + 2**-23, 1])
    display = NeuronHistogramDisplay(values, ["a", "b", "a"]).plot()
    assert [patch.get_data().values.sum() for patch in display.patches_] == [2, 1]


def test_a_missing_label_is_a_class():
    display = NeuronHistogramDisplay([0.0, 1.0, 2.0, 3.0], [0.0, np.nan, 1.0, np.nan]).plot()
    assert legend(display) == ["0.0 (1)", "1.0 (1)", "nan (2)"]
    assert [patch.get_data().values.sum() for patch in display.patches_] == [1, 1, 2]


def test_names_of_classes_are_not_read_as_anything_else():
    display = NeuronHistogramDisplay([0.0, 1.0, 2.0], ["__label__1", "$1-$2", "_"]).plot()
    assert legend(display) == [r"\$1-\$2 (1)", " _ (1)", " __label__1 (1)"]
    display.figure_.draw_without_rendering()


def test_init_stores_and_draws_nothing(X, y):
    values = X[:, 0]
    display = NeuronHistogramDisplay(values, y, threshold=0.5, name="neuron 0")
    assert display.values is values
    assert display.y is y
    assert (display.threshold, display.name) == (0.5, "neuron 0")
    assert not hasattr(display, "ax_")
    assert plt.get_fignums() == []


def test_the_first_neuron_of_a_classifier_and_its_threshold(classifier, X, y):
    display = NeuronHistogramDisplay.from_estimator(classifier, X, y, bins=10)
    np.testing.assert_array_equal(display.values, X[:, 5])
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xlabel() == "value of neuron 5"
    assert display.threshold_line_.get_xdata() == [classifier.threshold_] * 2
    counts = [np.count_nonzero(y == label) for label in ("blame", "praise")]
    assert legend(display) == [
        f"blame ({counts[0]})",
        f"praise ({counts[1]})",
        f"threshold {classifier.threshold_:.3g}",
    ]
    for patch, label in zip(display.patches_, ("blame", "praise"), strict=True):
        expected, edges = np.histogram(
            X[y == label, 5], bins=10, range=(X[:, 5].min(), X[:, 5].max())
        )
        np.testing.assert_array_equal(patch.get_data().values, expected)
        np.testing.assert_allclose(patch.get_data().edges, edges)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.coo_array])
def test_sparse_features(classifier, X, y, kind):
    display = NeuronHistogramDisplay.from_estimator(classifier, kind(X), y)
    np.testing.assert_array_equal(display.values, X[:, 5])


def test_another_neuron_has_no_threshold(classifier, X, y):
    display = NeuronHistogramDisplay.from_estimator(classifier, X, y, neuron=2)
    np.testing.assert_array_equal(display.values, X[:, 2])
    assert display.threshold_line_ is None
    assert len(legend(display)) == 2


def test_names_of_a_data_frame(X, y):
    X = pd.DataFrame(X, columns=list("abcdefgh"))
    classifier = SentimentNeuronClassifier(random_state=0).fit(X, y)
    display = NeuronHistogramDisplay.from_estimator(classifier, X, y)
    assert display.ax_.get_xlabel() == "value of f"


def test_a_pipeline_on_texts(pipeline):
    display = NeuronHistogramDisplay.from_estimator(pipeline, TEXTS, LABELS, neuron=2)
    np.testing.assert_array_equal(display.values, pipeline[0].transform(TEXTS)[:, 2])
    assert display.ax_.get_xlabel() == "value of max_cell_4"


def test_steps_on_both_sides_of_the_featurizer(pipeline):
    clean = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    around = make_pipeline(clean, pipeline[0], StandardScaler(), pipeline[1]).fit(TEXTS, LABELS)
    display = NeuronHistogramDisplay.from_estimator(around, TEXTS, LABELS, neuron=1)
    assert display.ax_.get_xlabel() == "value of last_cell_2"
    np.testing.assert_allclose(np.mean(display.values), 0, atol=1e-6)


def test_a_step_that_names_no_features(pipeline):
    nameless = make_pipeline(pipeline[0], FunctionTransformer(np.abs), pipeline[1])
    display = NeuronHistogramDisplay.from_estimator(nameless, TEXTS, LABELS, neuron=1)
    assert display.ax_.get_xlabel() == "value of neuron 1"


def test_a_search(X, y):
    search = GridSearchCV(SentimentNeuronClassifier(random_state=0), {"C": [0.25]}).fit(X, y)
    display = NeuronHistogramDisplay.from_estimator(search, X, y)
    assert display.threshold == search.best_estimator_.threshold_


def test_classes_differ_by_more_than_colour(X):
    y = np.arange(200) % 13
    display = NeuronHistogramDisplay(X[:, 0], y).plot()
    styles = {(patch.get_edgecolor(), patch.get_hatch()) for patch in display.patches_}
    assert len(styles) == 13
    hatches = [patch.get_hatch() for patch in display.patches_[:5]]
    assert len(set(hatches)) == 5
    assert legend(display)[12] == "12 (15)"
    assert display.ax_.get_xlabel() == "value of the neuron"


def test_a_classifier_of_three_classes(X):
    y = np.digitize(X[:, 5], [-0.5, 0.5])
    classifier = SentimentNeuronClassifier(random_state=0).fit(X, y)
    display = NeuronHistogramDisplay.from_estimator(classifier, X, y)
    np.testing.assert_array_equal(display.values, X[:, 5])
    assert len(display.patches_) == 3
    assert display.threshold_line_ is None


def test_plot_on_given_axes(X, y):
    _, ax = plt.subplots()
    display = NeuronHistogramDisplay(X[:, 0], y)
    assert display.plot(ax=ax) is display
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_a_subclass_stays_a_subclass(classifier, X, y):
    class Display(NeuronHistogramDisplay):
        pass

    assert type(Display.from_estimator(classifier, X, y)) is Display


def test_errors_of_from_estimator_come_before_any_figure(classifier, pipeline, X, y):
    draw = NeuronHistogramDisplay.from_estimator
    with pytest.raises(NotFittedError):
        draw(SentimentNeuronClassifier(), X, y)
    with pytest.raises(NotFittedError):
        draw(make_pipeline(MLSTMFeaturizer(), SentimentNeuronClassifier()), TEXTS, LABELS)
    with pytest.raises(TypeError, match=r"must be a fitted Sentiment.* Got LogisticRegression\(\)"):
        draw(LogisticRegression().fit(X, y), X, y)
    with pytest.raises(ValueError, match=r"the 8 features .* from 0 to 7\. Got 8\."):
        draw(classifier, X, y, neuron=8)
    with pytest.raises(ValueError, match="'neuron' parameter"):
        draw(classifier, X, y, neuron=-1)
    with pytest.raises(ValueError, match="'bins' parameter"):
        draw(classifier, X, y, bins=0)
    with pytest.raises(ValueError, match="X has 3 features, but SentimentNeuronClassifier"):
        draw(classifier, X[:, :3], y)
    with pytest.raises(ValueError, match="Got 18 samples and 17 labels"):
        draw(pipeline, TEXTS, LABELS[1:])
    with pytest.raises(ValueError, match="y should be a 1d array"):
        draw(pipeline, TEXTS, None)
    with pytest.raises(TypeError, match="Expected sequence or array-like, got"):
        draw(pipeline, iter(text for text in TEXTS), LABELS)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("values", "y", "match"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], [0, 1], r"one-dimensional: .* Got shape \(2, 2\)"),
        ([1.0, 2.0, 3.0], [0, 1], "Got 3 samples and 2 labels"),
        ([1.0, np.nan], [0, 1], "values contains NaN"),
    ],
)
def test_errors_of_plot_come_before_any_figure(values, y, match):
    with pytest.raises(ValueError, match=match):
        NeuronHistogramDisplay(values, y).plot()
    assert plt.get_fignums() == []
