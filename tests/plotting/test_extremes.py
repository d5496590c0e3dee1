import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdiscovery.plotting import extreme_texts

TEXTS = ["four", "a", "sixsix", "", "seven77"]  # the fake featurizer gives their lengths


@pytest.fixture
def featurizer(fakes, language_model):
    return fakes.Featurizer(language_model).fit(TEXTS)


def test_both_tails_by_falling_value(featurizer):
    table = extreme_texts(featurizer, pd.Series(TEXTS, index=list("abcde")), neuron=3, n_texts=2)
    expected = pd.DataFrame(
        {
            "tail": ["high", "high", "low", "low"],
            "value": np.float32([7, 6, 1, 0]),
            "text": ["seven77", "sixsix", "a", ""],
        },
        index=[4, 2, 1, 3],
    )
    pd.testing.assert_frame_equal(table, expected)


def test_of_equal_texts_the_first_come_first(featurizer):
    table = extreme_texts(featurizer, ["x", "yy"] * 50, neuron=3, n_texts=4)
    assert table.index.tolist() == [1, 3, 5, 7, 92, 94, 96, 98]


def test_features_may_come_as_a_table(featurizer):
    expected = extreme_texts(featurizer, TEXTS, neuron=3)
    with config_context(transform_output="pandas"):
        pd.testing.assert_frame_equal(extreme_texts(featurizer, TEXTS, neuron=3), expected)


def test_a_classifier_that_has_found_no_neuron_is_warned_of(fakes, featurizer):
    pipeline = make_pipeline(featurizer, fakes.Classifier(sign=0)).fit(TEXTS, [0, 1, 0, 1, 0])
    with pytest.warns(UserWarning, match="has found no neuron"):
        table = extreme_texts(pipeline, TEXTS, n_texts=1)
    assert table["text"].tolist() == ["seven77", ""]


@pytest.mark.parametrize("n_texts", [1, 2, 3, 4])
@pytest.mark.parametrize("n_given", range(8))
def test_no_text_is_listed_twice(featurizer, n_texts, n_given):
    texts = ["x" * n for n in np.random.default_rng(n_given).integers(0, 5, n_given)]
    table = extreme_texts(featurizer, texts, neuron=3, n_texts=n_texts)
    assert len(table) == min(2 * n_texts, len(texts))
    assert table.index.is_unique
    assert table["value"].is_monotonic_decreasing
    assert table["text"].tolist() == [texts[i] for i in table.index]
    left = set(range(len(texts))) - set(table.index)
    high, low = (table["value"][table["tail"] == tail] for tail in ("high", "low"))
    assert all(low.max() <= len(texts[i]) <= high.min() for i in left)


def test_the_neuron_of_the_classifier(fakes, featurizer):
    class ByColumn(fakes.Featurizer):
        def transform(self, X):
            return np.array([[len(text), -len(text)] * 3 for text in X], dtype=np.float32)

    featurizer = ByColumn(featurizer.language_model)
    for column, highest in ((0, "seven77"), (1, "")):
        pipeline = make_pipeline(featurizer, fakes.Classifier(column)).fit(TEXTS, [0, 1, 0, 1, 0])
        assert extreme_texts(pipeline, TEXTS, n_texts=1)["text"].iloc[0] == highest
        # neuron 3 is what column 1 is about
        assert extreme_texts(pipeline, TEXTS, neuron=3)["text"].iloc[0] == ""


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"neuron": 2}, ValueError, "Neuron 2 is out of range: the featurizer has 3 neurons"),
        ({"neuron": None}, ValueError, "give neuron=, an index from 1 to 5"),
        ({"n_texts": 0}, ValueError, "'n_texts' parameter"),
        ({"X": "a text"}, TypeError, "'X' parameter"),
        ({"estimator": LogisticRegression()}, TypeError, "must be a fitted featurizer"),
    ],
)
def test_errors(featurizer, parameters, error, message):
    with pytest.raises(error, match=message):
        extreme_texts(**{"estimator": featurizer, "X": TEXTS, "neuron": 3} | parameters)


def test_a_classifier_behind_another_step_has_columns_of_its_own(fakes, featurizer):
    pipeline = make_pipeline(featurizer, StandardScaler(), fakes.Classifier())
    pipeline.fit(TEXTS, [0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match=r"Which neuron\?"):
        extreme_texts(pipeline, TEXTS)


def test_texts_are_listed_as_they_were_given(featurizer):
    doubled = FunctionTransformer(lambda X: [2 * text for text in X])
    table = extreme_texts(make_pipeline(doubled, featurizer), TEXTS, neuron=3, n_texts=1)
    assert table["text"].tolist() == ["seven77", ""]
    assert table["value"].tolist() == [14, 0]


def test_of_an_odd_number_the_high_end_has_one_more(featurizer):
    table = extreme_texts(featurizer, TEXTS[:3], neuron=3, n_texts=5)
    assert table["tail"].tolist() == ["high", "high", "low"]
