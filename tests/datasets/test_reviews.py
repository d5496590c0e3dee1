import numpy as np
import pandas as pd
import pytest

from skdiscovery.datasets import load_reviews


@pytest.fixture(scope="module")
def frame():
    return load_reviews(as_frame=True).frame


def test_bunch():
    reviews = load_reviews()
    assert len(reviews.data) == 400
    assert all(type(text) is str for text in reviews.data)
    assert reviews.target.shape == reviews.topic.shape == (400,)
    assert reviews.target.dtype == np.int64
    assert reviews.target_names == ["negative", "positive"]
    assert reviews.frame is None
    assert reviews.DESCR.startswith("Short labelled reviews")


def test_as_frame(frame):
    reviews = load_reviews(as_frame=True)
    assert list(frame.columns) == ["text", "label", "topic"]
    for series, column in [
        (reviews.data, "text"),
        (reviews.target, "label"),
        (reviews.topic, "topic"),
    ]:
        pd.testing.assert_series_equal(series, frame[column])
    assert list(frame["text"]) == load_reviews().data


@pytest.mark.parametrize("as_frame", [False, True])
def test_texts_and_labels_alone(as_frame):
    texts, labels = load_reviews(return_X_y=True, as_frame=as_frame)
    assert isinstance(texts, pd.Series if as_frame else list)
    assert isinstance(labels, pd.Series if as_frame else np.ndarray)
    assert len(texts) == len(labels) == 400


def test_balance(frame):
    assert frame.groupby(["topic", "label"]).size().to_dict() == {
        ("film", 0): 100,
        ("film", 1): 100,
        ("product", 0): 100,
        ("product", 1): 100,
    }


def test_every_stretch_is_mixed(frame):
    for start in range(0, 400, 50):
        assert 0.3 <= frame["label"][start : start + 50].mean() <= 0.7


def test_texts_are_distinct_and_short(frame):
    assert frame["text"].str.lower().is_unique
    assert frame["text"].str.split().str.len().between(5, 60).all()
    assert (frame["text"] == frame["text"].str.strip()).all()


def test_texts_exercise_the_preprocessing(frame):
    assert not frame["text"].map(str.isascii).all()
    assert frame["text"].str.contains("<br />", regex=False).any()


def test_callers_share_nothing():
    first = load_reviews()
    first.target_names.reverse()
    first.target[:] = 0
    assert load_reviews().target_names == ["negative", "positive"]
    assert load_reviews().target.mean() == 0.5


def test_refuses_what_is_no_boolean():
    with pytest.raises(ValueError, match="'as_frame' parameter of load_reviews"):
        load_reviews(as_frame="yes")
