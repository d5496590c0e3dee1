import re

import pytest

from skdiscovery.pretrained import find_model, read_model, shipped, shipped_models


@pytest.fixture
def two_models(tmp_path, monkeypatch):
    """A folder of shipped models with two of them."""
    for name in ("small.safetensors", "large.safetensors", "README.md"):
        (tmp_path / name).touch()
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    return tmp_path


def test_shipped_models_are_listed_by_name(two_models):
    assert shipped_models() == ["large", "small"]


def test_a_shipped_name_is_its_file(two_models):
    assert find_model("small") == two_models / "small.safetensors"


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_is_itself(tmp_path, kind):
    path = tmp_path / "model"
    path.touch()
    assert find_model(kind(path)) == path


def test_a_shipped_name_wins_over_a_file_of_that_name(two_models, monkeypatch):
    (two_models / "small").touch()
    monkeypatch.chdir(two_models)
    assert find_model("small") == two_models / "small.safetensors"
    assert find_model("./small").samefile(two_models / "small")


@pytest.mark.parametrize("name", ["smal", "no/such/file.safetensors"])
def test_an_unknown_name_is_refused_with_the_shipped_ones(two_models, name):
    message = re.escape(f"{name!r}") + r".*\['large', 'small'\]"
    with pytest.raises(ValueError, match=message):
        find_model(name)


def test_every_shipped_model_reads():
    for name in shipped_models():
        weights, config = read_model(find_model(name))
        assert weights["head.weight"].shape == (256, config["hidden_size"])
