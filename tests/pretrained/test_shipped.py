import hashlib
import re

import pytest

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer
from skdiscovery.data_folder import DATA_VARIABLE
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


@pytest.mark.parametrize(
    ("name", "placed"),
    [
        ("smal", "smal.safetensors"),
        ("smal.safetensors", "smal.safetensors"),
        ("no/such/file", "file.safetensors"),
    ],
)
def test_an_unknown_name_is_refused_with_the_shipped_ones(two_models, name, placed):
    message = re.escape(f"{name!r}") + rf".*\['large', 'small'\].* '{placed}' in the folder"
    with pytest.raises(ValueError, match=message):
        find_model(name)


def test_a_home_that_cannot_be_written_to_has_no_models(monkeypatch):
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", "/dev/null/home")
    with pytest.raises(ValueError, match="No language model 'larger'"):
        find_model("larger")


@pytest.fixture(params=["own folder", "data_home"])
def placed(request, tmp_path, monkeypatch):
    """A model that somebody put in the folder of the data, as "large"."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    if request.param == "own folder":
        monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "own"))
        folder = tmp_path / "own/models"
    else:
        monkeypatch.delenv(DATA_VARIABLE, raising=False)
        folder = tmp_path / "home/skdiscovery/models"
    folder.mkdir(parents=True)
    path = folder / "large.safetensors"
    path.write_bytes(find_model("default").read_bytes())
    return path


def test_a_model_in_the_folder_of_the_data_has_a_name(placed):
    assert find_model("large") == find_model("large.safetensors") == placed
    assert ByteMLSTMLanguageModel.from_pretrained("large").hidden_size > 0
    assert MLSTMFeaturizer("large").fit().language_model_.hidden_size > 0


@pytest.mark.parametrize("line", ["{}  large.safetensors\n", "{}\n", "{} *large.safetensors"])
def test_a_placed_model_has_the_hash_that_lies_beside_it(placed, line):
    digest = hashlib.sha256(placed.read_bytes()).hexdigest()
    beside = placed.with_name("large.safetensors.sha256")
    beside.write_text(line.format(digest))
    assert find_model("large") == placed
    with placed.open("ab") as file:
        file.write(b"x")
    altered = placed.read_bytes()
    got = f"{len(altered):,} bytes and SHA-256 {hashlib.sha256(altered).hexdigest()}"
    with pytest.raises(ValueError, match=f"expected SHA-256 '{digest}', got a file of {got}"):
        find_model("large")


def test_a_hash_may_be_in_capitals(placed):
    digest = hashlib.sha256(placed.read_bytes()).hexdigest()
    placed.with_name("large.safetensors.sha256").write_text(f"{digest.upper()}\n")
    assert find_model("large") == placed


def test_a_placed_model_is_hashed_once_and_anew_when_it_changes(placed, monkeypatch):
    hashed = []
    sha256_of = shipped.sha256_of
    monkeypatch.setattr(shipped, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    placed.with_name("large.safetensors.sha256").write_text(sha256_of(placed))
    for _ in range(3):
        MLSTMFeaturizer("large").fit()
    assert len(hashed) == 1
    with placed.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="expected SHA-256"):
        MLSTMFeaturizer("large").fit()
    assert len(hashed) == 2


@pytest.mark.parametrize("content", ["", "\n", "not a hash"])
def test_a_hash_that_is_none_is_refused(placed, content):
    placed.with_name("large.safetensors.sha256").write_text(content)
    with pytest.raises(ValueError, match="expected SHA-256"):
        find_model("large")


@pytest.mark.parametrize("name", ["../models/large", "models/large", "large/", "larger"])
def test_only_a_plain_name_is_looked_for_there(placed, name):
    with pytest.raises(ValueError, match=f"{name!r}: it is neither .*models.* of the data"):
        find_model(name)


def test_a_shipped_name_wins_over_a_placed_one(placed, monkeypatch):
    placed.rename(placed.with_name("default.safetensors"))
    assert find_model("default").parent == shipped.WEIGHTS


def test_every_shipped_model_reads():
    for name in shipped_models():
        weights, config = read_model(find_model(name))
        assert weights["head.weight"].shape == (256, config["hidden_size"])
