import runpy
import sys
from pathlib import Path

import pytest
from sklearn.utils import Bunch

from skdiscovery import ByteMLSTMLanguageModel, datasets

SCRIPT = Path(__file__).parents[2] / "examples/train_default_model.py"


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Run the script on a handful of reviews; return the model that it writes."""
    reviews = datasets.load_reviews().data * 2
    monkeypatch.setattr(datasets, "fetch_imdb", lambda subset: Bunch(data=reviews))

    def run(name, *options):
        path = str(tmp_path / name)
        sizes = ["--hidden-size", "8", "--batch-size", "4", "--seq-length", "20"]
        monkeypatch.setattr(sys, "argv", ["train", path, *sizes, *options])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return path

    return run


def test_it_writes_a_model_with_its_recommended_pooling(train):
    path = train("a.safetensors", "--n-megabytes", "0.002", "--pooling", "last", "mean")
    model = ByteMLSTMLanguageModel.from_pretrained(path)
    assert model.config_["pooling"] == ["last", "mean"]
    assert model.n_steps_ == 25
    assert Path(path).stat().st_size < 50_000  # half precision


def test_it_trains_a_model_on(train):
    first = train("a.safetensors", "--n-megabytes", "0.002")
    second = train("b.safetensors", "--n-megabytes", "0.001", "--start-from", first)
    assert ByteMLSTMLanguageModel.from_pretrained(second).n_steps_ == 25 + 12
