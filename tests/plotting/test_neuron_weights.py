import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skdiscovery import MLSTMFeaturizer, NeuronWeightsDisplay, SentimentNeuronClassifier

COEF = np.array([[0.0, 3.0, 0.0, -4.0, 0.0]])
CLASSES = np.array(["bad", "good"])


@pytest.fixture(scope="module", name="X")
def features():
    return np.random.default_rng(0).normal(size=(200, 8))


def legend(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def names(display):
    return [label.get_text() for label in display.labels_]


def test_init_stores_and_draws_nothing():
    labels = list("abcde")
    display = NeuronWeightsDisplay(COEF, CLASSES, names=labels)
    assert display.coef is COEF
    assert display.classes is CLASSES
    assert display.names is labels
    assert not hasattr(display, "ax_")
    assert plt.get_fignums() == []


def test_a_stem_per_weight_that_is_not_zero_over_the_norm():
    display = NeuronWeightsDisplay(COEF, CLASSES).plot()
    assert display.figure_ is display.ax_.figure
    (stems,) = display.stems_
    expected = [[[1, 0], [1, 0.6]], [[3, 0], [3, -0.8]]]
    np.testing.assert_allclose(stems.get_segments(), expected)
    (heads,) = display.heads_
    np.testing.assert_allclose(heads.get_xydata(), [[1, 0.6], [3, -0.8]])
    assert heads.get_linestyle() == "None"
    assert "L2 norm" in display.ax_.get_ylabel()
    low, high = display.ax_.get_xlim()
    assert low < 0 < 4 < high
    assert legend(display) == ["good (2 of 5)"]


def test_the_first_neurons_are_named_beyond_their_stems():
    display = NeuronWeightsDisplay(COEF, CLASSES).plot()
    assert names(display) == ["3", "1"]  # a weight of zero needs no name
    assert [label.xy for label in display.labels_] == [(3, -0.8), (1, 0.6)]
    assert [label.get_va() for label in display.labels_] == ["top", "bottom"]
    assert names(NeuronWeightsDisplay(COEF, CLASSES, names=list("abcde")).plot(n_labelled=1)) == [
        "d"
    ]
    assert names(NeuronWeightsDisplay(COEF, CLASSES).plot(n_labelled=0)) == []


def test_names_stay_within_the_axes():
    coef = np.eye(512)[[0]] + np.eye(512)[[250]] + np.eye(512)[[511]]
    long = [f"mean_cell_{neuron}" for neuron in range(512)]
    display = NeuronWeightsDisplay(coef, CLASSES, names=long).plot()
    display.figure_.canvas.draw()
    axes = display.ax_.get_window_extent()
    for label in display.labels_:
        assert axes.x0 < label.get_window_extent().x0
        assert label.get_window_extent().x1 < axes.x1


def test_from_estimator_shows_the_regression_on_all_neurons(X):
    y = np.where(X[:, 5] + 0.5 * X[:, 2] < 0.5, "praise", "blame")
    classifier = SentimentNeuronClassifier(random_state=0).fit(X, y)
    display = NeuronWeightsDisplay.from_estimator(classifier, n_labelled=2)
    np.testing.assert_array_equal(display.coef, classifier.all_neurons_.coef_)
    assert legend(display) == [f"praise ({classifier.n_features_used_} of 8)"]
    assert names(display) == ["5", "2"]


@pytest.mark.parametrize("solver", ["liblinear", "saga"])
def test_stems_for_each_of_three_classes(X, solver):
    y = np.digitize(X[:, 5], [-0.5, 0.5])
    classifier = SentimentNeuronClassifier(n_neurons=2, solver=solver, random_state=0).fit(X, y)
    display = NeuronWeightsDisplay.from_estimator(classifier)
    assert [text.split()[0] for text in legend(display)] == ["0", "1", "2"]
    for heads, row in zip(display.heads_, display.coef, strict=True):
        np.testing.assert_array_equal(np.round(heads.get_xdata()), np.flatnonzero(row))
        np.testing.assert_allclose(np.linalg.norm(heads.get_ydata()), 1)
    assert names(display)[:2] == [str(neuron) for neuron in classifier.neuron_indices_]
    of_one_neuron = [heads.get_xdata()[heads.get_xdata().round() == 5] for heads in display.heads_]
    assert len(set(np.concatenate(of_one_neuron))) == sum(map(len, of_one_neuron))


def test_classes_differ_by_more_than_colour():
    display = NeuronWeightsDisplay(np.ones((13, 4)), np.arange(13)).plot()
    styles = {(heads.get_color(), heads.get_marker()) for heads in display.heads_}
    assert len(styles) == 13


def test_one_row_has_the_colour_of_the_second_class():
    one = NeuronWeightsDisplay(COEF, CLASSES).plot().heads_[0]
    second = NeuronWeightsDisplay(np.ones((3, 5)), np.arange(3)).plot().heads_[1]
    assert (one.get_color(), one.get_marker()) == (second.get_color(), second.get_marker())


def test_names_come_from_the_featurizer_of_a_pipeline():
    texts, y = ["A lovely film.", "A dull film.", "Fun.", "Bad."] * 3, [1, 0] * 6
    featurizer = MLSTMFeaturizer(neurons=[4, 2], pooling=("last", "max"), device="cpu")
    pipeline = make_pipeline(featurizer, SentimentNeuronClassifier(C=9.0)).fit(texts, y)
    display = NeuronWeightsDisplay.from_estimator(pipeline)
    assert list(display.names) == ["last_cell_4", "last_cell_2", "max_cell_4", "max_cell_2"]
    assert set(names(display)) <= set(display.names)


def test_weights_that_are_all_zero():
    display = NeuronWeightsDisplay(np.zeros((1, 4)), CLASSES).plot()
    assert names(display) == []
    assert legend(display) == ["good (0 of 4)"]
    display.figure_.canvas.draw()


def test_plot_on_given_axes():
    _, ax = plt.subplots()
    display = NeuronWeightsDisplay(COEF, CLASSES)
    assert display.plot(ax=ax) is display
    assert display.ax_ is ax
    assert display.figure_ is ax.figure


def test_a_subclass_stays_a_subclass(X):
    class Display(NeuronWeightsDisplay):
        pass

    classifier = SentimentNeuronClassifier().fit(X, X[:, 0] > 0)
    assert type(Display.from_estimator(classifier)) is Display


@pytest.mark.parametrize(
    ("coef", "classes", "labels", "match"),
    [
        (COEF, [0, 1, 2], None, r"must have 3 row\(s\) for 3 classes.* Got shape \(1, 5\)"),
        (np.ones((2, 5)), CLASSES, None, r"must have 1 row\(s\) for 2 classes"),
        (COEF[0], CLASSES, None, "Expected 2D array, got 1D array"),
        (COEF, CLASSES, ["a"], r"per column of coef, 5\. Got 1\."),
    ],
)
def test_errors_of_plot_come_before_any_figure(coef, classes, labels, match):
    with pytest.raises(ValueError, match=match):
        NeuronWeightsDisplay(coef, classes, names=labels).plot()
    assert plt.get_fignums() == []


def test_errors_of_from_estimator_come_before_any_figure(X):
    with pytest.raises(NotFittedError):
        NeuronWeightsDisplay.from_estimator(SentimentNeuronClassifier())
    with pytest.raises(TypeError, match="Got LogisticRegression"):
        NeuronWeightsDisplay.from_estimator(LogisticRegression().fit(X, X[:, 0] > 0))
    with pytest.raises(ValueError, match="'n_labelled' parameter"):
        NeuronWeightsDisplay.from_estimator(SentimentNeuronClassifier(), n_labelled=-1)
    assert plt.get_fignums() == []


def test_a_name_is_beyond_the_longest_stem_of_its_neuron():
    display = NeuronWeightsDisplay([[1.0, 2.0], [-3.0, 0.0], [0.0, 0.1]], ["a", "b", "c"])
    assert display.plot(n_labelled=1).labels_[0].xy[1] < 0
