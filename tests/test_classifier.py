import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdiscovery.classifier import SentimentNeuronClassifier

# Of many a problem here nothing can be learnt.
pytestmark = pytest.mark.filterwarnings("ignore:This classifier is right in")

SOLVERS = ["liblinear", "saga"]
EXACT = {"tol": 1e-10, "max_iter": 100_000, "random_state": 0}


def problem(n_classes=2, n_samples=120, n_features=6, seed=0):
    """Classes cut from a noisy sum of the features, each feature counting less than the last."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_features))
    score = X @ 0.5 ** np.arange(n_features) + 0.3 * rng.normal(size=n_samples)
    return X, np.digitize(score, np.quantile(score, np.arange(1, n_classes) / n_classes))


def planted(sign=1, column=4):
    """One column tells the classes apart at 0.7; the others are noise."""
    X = np.random.default_rng(1).normal(size=(400, 7))
    return X, (sign * (X[:, column] - 0.7) > 0).astype(int)


def reference_coef(X, y, solver, **params):
    """Fit on all features with nothing but LogisticRegression."""

    def coef(target):
        model = LogisticRegression(l1_ratio=1, solver=solver, **params)
        return model.fit(X, target).coef_

    classes = np.unique(y)
    if solver == "saga" or len(classes) == 2:
        return coef(y)
    return np.vstack([coef(y == label) for label in classes])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [
        SentimentNeuronClassifier(),
        SentimentNeuronClassifier(n_neurons=2),
        SentimentNeuronClassifier(n_neurons=None),
        SentimentNeuronClassifier(class_weight="balanced"),
        SentimentNeuronClassifier(solver="saga"),
        SentimentNeuronClassifier(solver="saga", n_neurons=None),
        SentimentNeuronClassifier(1.0, solver="saga", n_neurons=None, tol=1e-12, max_iter=100_000),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(
    n_classes=st.integers(2, 4),
    n_neurons=st.none() | st.integers(1, 6),
    C=st.sampled_from([0.03, 0.25, 1.0]),
    seed=st.integers(0, 99),
)
def test_ranks_and_refits_as_logistic_regression_does(solver, n_classes, n_neurons, C, seed):
    X, y = problem(n_classes, seed=seed)
    params = {"C": C, "tol": 1e-3, "random_state": seed}
    classifier = SentimentNeuronClassifier(solver=solver, n_neurons=n_neurons, **params).fit(X, y)

    full = reference_coef(X, y, solver, max_iter=1000, **params)
    importance = np.abs(full).sum(axis=0)
    ranking = sorted(range(X.shape[1]), key=lambda column: (-importance[column], column))
    n_used = (importance > 0).sum()
    expected = ranking[: n_neurons or max(n_used, 1)]
    assert classifier.neuron_indices_.tolist() == expected
    assert classifier.n_features_used_ == n_used

    coef = reference_coef(X[:, expected], y, solver, max_iter=1000, **params)
    np.testing.assert_allclose(classifier.coef_[:, expected], coef)
    assert not np.delete(classifier.coef_, expected, axis=1).any()
    assert classifier.coef_.shape == (1 if n_classes == 2 else n_classes, X.shape[1])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_predicts_as_the_linear_model_it_shows(solver, n_classes):
    X, y = problem(n_classes)
    labels = np.array(["bad", "good", "mixed"])[y]
    classifier = SentimentNeuronClassifier(solver=solver, n_neurons=3, random_state=0)
    classifier.fit(X, labels)
    scores = X @ classifier.coef_.T + classifier.intercept_
    np.testing.assert_allclose(classifier.decision_function(X), scores.squeeze())
    best = scores.argmax(axis=1) if n_classes == 3 else (scores[:, 0] > 0).astype(int)
    assert (classifier.predict(X) == classifier.classes_[best]).all()
    assert classifier.score(X, labels) == np.mean(labels == classifier.classes_[best])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_probabilities_are_those_of_the_refitted_regression(solver, n_classes):
    X, y = problem(n_classes)
    classifier = SentimentNeuronClassifier(solver=solver, n_neurons=3, random_state=0).fit(X, y)
    refit = LogisticRegression(
        C=0.25, l1_ratio=1, solver=solver, max_iter=1000, tol=1e-4, random_state=0
    )
    if solver == "liblinear" and n_classes > 2:
        refit = OneVsRestClassifier(refit)
    chosen = X[:, classifier.neuron_indices_]
    expected = refit.fit(chosen, y).predict_proba(chosen)
    np.testing.assert_allclose(classifier.predict_proba(X), expected)


def test_probabilities_far_out_stay_probabilities():
    X, y = problem(3)
    classifier = SentimentNeuronClassifier(n_neurons=None).fit(X, y)
    probabilities = classifier.predict_proba(1e6 * X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    predicted = probabilities[np.arange(len(X)), classifier.predict(1e6 * X)]
    np.testing.assert_array_equal(predicted, probabilities.max(axis=1))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("solver", SOLVERS)
def test_planted_neuron_is_found_with_its_sign_and_threshold(solver, sign):
    X, y = planted(sign)
    classifier = SentimentNeuronClassifier(solver=solver, random_state=0).fit(X, y)
    assert classifier.neuron_indices_.tolist() == [4]
    assert classifier.neuron_sign_ == sign
    assert classifier.threshold_ == pytest.approx(0.7, abs=0.15)

    probes = np.random.default_rng(2).normal(size=(2, 7))
    probes[:, 4] = classifier.threshold_ + np.array([-1e-9, 1e-9])
    assert classifier.predict(probes).tolist() == ([0, 1] if sign == 1 else [1, 0])


@pytest.mark.parametrize(("n_classes", "n_neurons"), [(2, 2), (3, 1)])
def test_no_threshold_unless_two_classes_and_one_neuron(n_classes, n_neurons):
    X, y = problem(n_classes)
    assert SentimentNeuronClassifier(n_neurons=n_neurons).fit(X, y).threshold_ is None


def test_sign_speaks_for_the_last_of_many_classes():
    X, y = problem(3)
    for solver in SOLVERS:
        assert SentimentNeuronClassifier(solver=solver).fit(X, y).neuron_sign_ == 1
        assert SentimentNeuronClassifier(solver=solver).fit(-X, y).neuron_sign_ == -1


@pytest.mark.parametrize("solver", SOLVERS)
def test_all_neurons_is_a_fitted_model_on_all_features(solver):
    X, y = problem(3)
    classifier = SentimentNeuronClassifier(1.0, n_neurons=None, solver=solver).fit(X, y)
    assert classifier.all_neurons_.n_features_in_ == X.shape[1]
    assert classifier.all_neurons_.score(X, y) == pytest.approx(classifier.score(X, y), abs=0.02)


def test_none_uses_only_what_l1_kept():
    X, y = planted()
    classifier = SentimentNeuronClassifier(0.05, n_neurons=None, random_state=0).fit(X, y)
    kept = np.flatnonzero(classifier.all_neurons_.coef_[0])
    assert 0 < len(kept) < X.shape[1]
    assert sorted(classifier.neuron_indices_) == kept.tolist()


@pytest.mark.parametrize("n_neurons", [1, 3, None])
@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 1, 1, 2, 2, 2]])
@pytest.mark.parametrize("solver", SOLVERS)
def test_without_coefficients_the_majority_wins(solver, labels, n_neurons):
    X, _ = problem()
    y = np.resize(labels, len(X))
    classifier = SentimentNeuronClassifier(
        1e-6, n_neurons=n_neurons, solver=solver, random_state=0
    ).fit(X, y)
    assert not classifier.coef_.any()
    assert classifier.n_features_used_ == 0
    assert classifier.neuron_indices_.tolist() == list(range(n_neurons or 1))
    assert classifier.threshold_ is None
    assert classifier.neuron_sign_ == 1
    assert (classifier.predict(X) == labels[-1]).all()
    np.testing.assert_allclose(classifier.predict_proba(X)[0], np.bincount(y) / len(y))


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_the_majority_is_the_accuracy_of_a_dummy(n_classes, class_weight):
    X, y = problem(n_classes)
    X, y = X[:100], y[:100]
    weight = np.random.default_rng(5).uniform(size=100)
    classifier = SentimentNeuronClassifier(class_weight=class_weight).fit(X, y, weight)
    dummy = DummyClassifier().fit(X, y, weight)
    expected = dummy.score(X, y, weight) if class_weight is None else 1 / n_classes
    assert classifier.majority_score_ == pytest.approx(expected)


@pytest.mark.parametrize("labels", [["b", "g"], ["b", "g", "m"]])
@pytest.mark.parametrize("sparse_matrix", [False, True])
def test_who_learns_is_not_warned(labels, sparse_matrix):
    X, y = problem(len(labels))
    frame = pd.DataFrame(X, columns=list("abcdef"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = SentimentNeuronClassifier(random_state=0).fit(
            sparse.csr_array(X) if sparse_matrix else frame, np.array(labels)[y]
        )
    assert fitted.score(frame if not sparse_matrix else X, np.array(labels)[y]) > 0.6


def test_who_learns_nothing_is_told_so():
    X, y = problem()
    labels = np.where(y, "praise", "blame")[np.r_[:120, y.nonzero()[0]]]
    X = np.vstack([X, X[y == 1]])
    message = r"right in 66\.7% .* always predicting 'praise' \(66\.7%\): the L1 penalty leaves no"
    with pytest.warns(UserWarning, match=message) as caught:
        classifier = SentimentNeuronClassifier(1e-6).fit(X, labels)
    assert caught[0].filename == __file__
    assert classifier.score(X, labels) == classifier.majority_score_


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_neuron_that_never_tips_the_balance_is_as_good_as_none(n_classes):
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(900), np.ones(50), np.full(50, n_classes - 1)].astype(int)
    X = rng.normal(size=(1000, 2)) + 0.3 * y[:, None]
    classifier = SentimentNeuronClassifier()
    with pytest.warns(UserWarning, match=r"always predicting 0 \(90\.0%\): raise n_neurons or C"):
        classifier.fit(X, y)
    assert classifier.coef_.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clone(classifier).set_params(class_weight="balanced").fit(X, y)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [1e-6, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_class_that_weighs_nothing_is_never_predicted(n_classes, C, solver):
    X, y = problem(n_classes)
    classifier = SentimentNeuronClassifier(
        C, n_neurons=None, class_weight={0: 0.0}, solver=solver, random_state=0
    ).fit(X, y)
    assert classifier.predict(X).all()
    assert np.isfinite(classifier.predict_proba(X)).all()


@pytest.mark.parametrize("seed", range(10))
def test_whether_it_is_better_than_the_majority_goes_by_weights(seed):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(20, 1)), np.r_[0, 1, rng.integers(0, 2, 18)]
    weight = rng.integers(1, 6, size=20).astype(float)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        classifier = SentimentNeuronClassifier(1.0, random_state=0).fit(X, y, weight)
    is_no_better = classifier.score(X, y, weight) <= classifier.majority_score_ + 1e-9
    assert any("no better than" in str(warning.message) for warning in caught) == is_no_better


@pytest.mark.parametrize("seed", range(4))
def test_rounding_makes_nobody_better_than_the_majority(seed):
    rng = np.random.default_rng(seed)
    y, weight = np.r_[0, 1, rng.random(48) < 0.3].astype(int), rng.random(50)
    with pytest.warns(UserWarning, match="no better than"):
        SentimentNeuronClassifier(1e-6).fit(np.zeros((50, 1)), y, weight)


def test_large_weights_are_a_large_c():
    X, y = problem()
    weight = np.random.default_rng(2).uniform(0.5, 2, size=len(y))
    exact = EXACT | {"solver": "saga", "tol": 1e-8}
    one = SentimentNeuronClassifier(0.25, **exact).fit(X, y, weight)
    other = SentimentNeuronClassifier(0.25 / 100, **exact).fit(X, y, 100 * weight)
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_weight_counts_like_repetition(solver, n_classes):
    X, y = problem(n_classes, n_samples=40)
    weight = np.random.default_rng(3).integers(0, 5, len(y))
    classifier = SentimentNeuronClassifier(1.0, n_neurons=2, solver=solver, **EXACT)
    weighted = clone(classifier).fit(X, y, sample_weight=weight)
    repeated = clone(classifier).fit(X.repeat(weight, axis=0), y.repeat(weight))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, rtol=1e-5, atol=1e-6)
    assert weighted.coef_.any()


@pytest.mark.parametrize(
    "class_weight", ["balanced", {"bad": 3, "good": 0.5, "mixed": 2}, {"mixed": 9}]
)
@pytest.mark.parametrize("solver", SOLVERS)
def test_class_weight_is_sample_weight_by_label(solver, class_weight):
    X, y = problem(3)
    X, y = X[30:], np.array(["bad", "good", "mixed"])[y][30:]
    classifier = SentimentNeuronClassifier(1.0, n_neurons=2, solver=solver, **EXACT)
    by_class = clone(classifier).set_params(class_weight=class_weight).fit(X, y)
    by_sample = clone(classifier).fit(X, y, compute_sample_weight(class_weight, y))
    np.testing.assert_allclose(by_class.coef_, by_sample.coef_, atol=1e-6)
    assert not np.allclose(by_class.coef_, clone(classifier).fit(X, y).coef_, atol=1e-3)


def test_a_class_of_weight_zero_is_absent():
    X, y = problem(3)
    classifier = SentimentNeuronClassifier(random_state=0)
    classifier.fit(X, y, sample_weight=(y != 1).astype(float))
    assert classifier.classes_.tolist() == [0, 2]
    kept = clone(classifier).fit(X[y != 1], y[y != 1])
    np.testing.assert_array_equal(classifier.coef_, kept.coef_)


@pytest.mark.parametrize("solver", SOLVERS)
def test_sparse_features_predict_as_dense_ones(solver):
    X, y = problem(3)
    X[X < 0] = 0
    classifier = SentimentNeuronClassifier(1.0, n_neurons=3, solver=solver, **EXACT)
    dense = clone(classifier).fit(X, y)
    thin = clone(classifier).fit(sparse.csc_array(X), y)
    assert thin.neuron_indices_.tolist() == dense.neuron_indices_.tolist()
    np.testing.assert_allclose(
        thin.predict_proba(sparse.csr_array(X)), dense.predict_proba(X), rtol=1e-4
    )


def test_data_frame_and_series_keep_names():
    X, y = planted()
    frame = pd.DataFrame(X, columns=[f"neuron_{i}" for i in range(X.shape[1])])
    labels = pd.Series(y).map({0: "blame", 1: "praise"})
    classifier = SentimentNeuronClassifier(random_state=0).fit(frame, labels)
    assert classifier.feature_names_in_[classifier.neuron_indices_].tolist() == ["neuron_4"]
    assert classifier.classes_.tolist() == ["blame", "praise"]
    assert set(classifier.predict(frame)) == {"blame", "praise"}
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(frame[frame.columns[::-1]])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_round_trips_predict_the_same(n_classes, tmp_path):
    X, y = problem(n_classes)
    classifier = SentimentNeuronClassifier(n_neurons=2).fit(X, y)
    joblib.dump(classifier, tmp_path / "classifier.joblib")
    for copy in (
        pickle.loads(pickle.dumps(classifier)),
        joblib.load(tmp_path / "classifier.joblib"),
    ):
        np.testing.assert_array_equal(copy.predict_proba(X), classifier.predict_proba(X))


def test_clone_forgets_the_fit_and_repeats_it():
    X, y = problem()
    classifier = SentimentNeuronClassifier(0.5, n_neurons=2, random_state=3).fit(X, y)
    copy = clone(classifier)
    assert not hasattr(copy, "coef_")
    assert copy.get_params() == classifier.get_params()
    np.testing.assert_array_equal(copy.fit(X, y).coef_, classifier.coef_)


def test_grid_search_over_c_finds_the_planted_neuron():
    X, y = planted()
    grid = {"C": [1e-6, 0.0625, 0.25, 1.0]}
    search = GridSearchCV(SentimentNeuronClassifier(random_state=0), grid, cv=3).fit(X, y)
    assert search.best_params_["C"] > 1e-6
    assert search.best_estimator_.neuron_indices_.tolist() == [4]
    assert search.best_score_ > 0.9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_neurons": 7}, "n_neurons=7 is larger than n_features=6"),
        ({"n_neurons": 0}, r"'n_neurons' parameter .* must be an int in the range \[1, inf\)"),
        ({"n_neurons": 1.5}, "'n_neurons' parameter"),
        ({"C": 0}, r"'C' parameter .* must be a float in the range \(0.0, inf\)"),
        ({"C": np.inf}, "'C' parameter"),
        ({"solver": "lbfgs"}, "'solver' parameter .* must be a str among"),
        ({"class_weight": "heavy"}, "'class_weight' parameter"),
        ({"class_weight": {0: 2.0, "a": 3.0}}, r"for \['a'\], which y has not, and none for \[1\]"),
        ({"max_iter": 0}, "'max_iter' parameter"),
        ({"tol": 0.0}, "'tol' parameter"),
    ],
)
def test_refuses_parameters(params, message):
    X, y = problem()
    with pytest.raises(ValueError, match=message):
        SentimentNeuronClassifier(**params).fit(X, y)


@pytest.mark.parametrize("solver", SOLVERS)
def test_refuses_one_class(solver):
    X, y = problem()
    classifier = SentimentNeuronClassifier(solver=solver)
    message = r"at least 2 classes .* got 1 class\(es\): \[1\]"
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, np.ones_like(y))
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, y, sample_weight=y)


def test_refuses_data():
    X, y = problem()
    classifier = SentimentNeuronClassifier()
    for changes, message in [
        ({"y": y[:-1]}, "inconsistent numbers of samples"),
        ({"y": X[:, 0]}, "Unknown label type"),
        ({"X": np.where(X > 2, np.nan, X)}, "contains NaN"),
        ({"y": np.array([*y[1:].astype(str), None], object)}, "label at index 119 is missing"),
        ({"sample_weight": np.ones(3)}, "sample_weight.shape"),
        ({"sample_weight": -np.ones(len(y))}, "Negative values"),
    ]:
        with pytest.raises(ValueError, match=message):
            classifier.fit(**({"X": X, "y": y} | changes))
    with pytest.raises(ValueError, match="expecting 6 features"):
        classifier.fit(X, y).predict(X[:, :5])


@pytest.mark.parametrize(
    "class_weight", [{0: -1.0, 1: 1.0}, {0: 0, 1: 0}, {0: np.nan, 1: 1}, {0: np.inf, 1: 1}]
)
def test_senseless_class_weights_are_refused(class_weight):
    classifier = SentimentNeuronClassifier(class_weight=class_weight)
    with pytest.raises(ValueError, match=r"class_weight must be finite .* got \{0: "):
        classifier.fit(np.eye(6), [0, 1] * 3)


def test_a_threshold_of_zero_has_no_sign():
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    threshold = SentimentNeuronClassifier(C=10).fit(X, [0, 0, 1, 1]).threshold_
    assert str(threshold) == "0.0"
