import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skdiscovery import SentimentNeuronClassifier
from skdiscovery.datasets import load_reviews

ROOT = Path(__file__).parents[2]


@pytest.fixture
def few_reviews(monkeypatch):
    """Let the reviews that ship be few and short, that a test may be, too."""
    texts, labels = load_reviews(return_X_y=True)
    few = [text[:80] for text in texts[:60]], labels[:60]
    monkeypatch.setattr("skdiscovery.datasets.load_reviews", lambda return_X_y: few)


@pytest.mark.usefixtures("few_reviews")
def test_the_quickstart_does_the_main_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/quickstart.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(f"{part}. " in printed for part in range(1, 6))
    accuracies = re.findall(r"(?:kept|neuron|class): +(0\.\d\d|1\.00)", printed)
    assert len(accuracies) == 3
    for picture in ("learning_curve.png", "heatmap.png"):
        assert (tmp_path / "runs/quickstart" / picture).stat().st_size > 5_000


@pytest.mark.filterwarnings("ignore:This classifier is right in")
@pytest.mark.parametrize(
    ("C", "expected"),
    [
        (1.0, r"1 of 3 features kept by L1\n   the first is x1: positive above 0\.\d\d\n"),
        (1e-6, r"0 of 3 features kept by L1\n   so these reviews are too few to find it by\.\n"),
    ],
)
def test_it_says_what_was_found_or_that_nothing_was(C, expected, capsys):
    features = FunctionTransformer(feature_names_out="one-to-one")
    pipeline = Pipeline([("featurizer", features), ("classifier", SentimentNeuronClassifier(C))])
    X = np.tile([[0, 0, 0], [0, 1, 0]], (50, 1))
    pipeline.fit(X, X[:, 1])
    describe = runpy.run_path(str(ROOT / "examples/quickstart.py"))["describe_neuron"]
    describe(pipeline)
    assert re.fullmatch(rf"   {expected}", capsys.readouterr().out)


def test_its_sentiment_neuron_is_that_of_the_model_that_ships():
    quickstart = runpy.run_path(str(ROOT / "examples/quickstart.py"))
    card = (ROOT / "skdiscovery/pretrained/weights/default.md").read_text()
    assert f"sentiment neuron** is {quickstart['SENTIMENT_NEURON']}," in card


@pytest.mark.usefixtures("few_reviews")
def test_the_story_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (story,) = re.findall(
        r"```python\n(.*?plot_heatmap\(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    names: dict = {}
    exec(story, names)
    search = names["search"]
    classifier = search.best_estimator_["classifier"]
    n_neurons = search.best_params_["classifier__n_neurons"] or classifier.n_features_used_
    assert classifier.neuron_indices_.shape == (max(1, n_neurons),)
