import re
import runpy
from pathlib import Path

from skdiscovery.datasets import load_reviews

ROOT = Path(__file__).parents[2]


def test_the_quickstart_does_the_main_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/quickstart.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert all(f"{part}. " in printed for part in range(1, 6))
    accuracies = re.findall(r"(?:kept|neuron|class): +(0\.\d\d|1\.00)", printed)
    assert len(accuracies) == 3
    for picture in ("learning_curve.png", "heatmap.png"):
        assert (tmp_path / "runs/quickstart" / picture).stat().st_size > 5_000


def test_its_sentiment_neuron_is_that_of_the_model_that_ships():
    quickstart = runpy.run_path(str(ROOT / "examples/quickstart.py"))
    card = (ROOT / "skdiscovery/pretrained/weights/default.md").read_text()
    assert f"sentiment neuron** is {quickstart['SENTIMENT_NEURON']}," in card


def test_the_story_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (story,) = re.findall(
        r"```python\n(.*?plot_heatmap\(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    texts, labels = load_reviews(return_X_y=True)
    names = {"texts": texts[:60], "labels": labels[:60]}
    exec(story, names)
    search = names["search"]
    classifier = search.best_estimator_["classifier"]
    n_neurons = search.best_params_["classifier__n_neurons"] or classifier.n_features_used_
    assert classifier.neuron_indices_.shape == (max(1, n_neurons),)
