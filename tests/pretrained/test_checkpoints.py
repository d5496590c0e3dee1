import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.pretrained import import_model

TEXTS = [f"A film, number {k}, that is good or bad." for k in range(40)]


def trained(folder, **parameters):
    lm = ByteMLSTMLanguageModel(
        8, embedding_size=3, batch_size=4, seq_length=16, max_steps=6, checkpoint_every=3,
        checkpoint_dir=folder, device="cpu", random_state=0,
    )  # fmt: skip
    return lm.set_params(**parameters).fit(TEXTS, X_val=TEXTS[:3])


@pytest.fixture
def path(tmp_path):
    """The last checkpoint of a run."""
    trained(tmp_path)
    return tmp_path / "step-000000000006.safetensors"


@pytest.fixture
def rewrite(path, monkeypatch):
    """Write the checkpoint again with other contents, which its hashes match all the same."""
    monkeypatch.setattr("skdiscovery.training.checkpoint._hash", lambda snapshot: "as written")
    monkeypatch.setattr("skdiscovery.training.checkpoint._hash_of_header", lambda header: "it was")

    def rewrite(change):
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(header, tensors)
        header |= {"sha256": "as written", "sha256_of_header": "it was"}
        save_file(tensors, path, metadata=header)

    return rewrite


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"cell": "lstm", "n_layers": 2},
        {"n_layers": 2, "weight_norm": "all"},
        {"weight_norm": False, "precision": "float64"},
        {"preprocessor": None},
    ],
    ids=str,
)
def test_the_last_checkpoint_is_the_model(tmp_path, parameters):
    lm = trained(tmp_path, **parameters)
    read = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "step-000000000006.safetensors")
    assert read.config_ == lm.config_
    assert read.weights_.keys() == lm.weights_.keys()
    for name, weight in lm.weights_.items():
        np.testing.assert_array_equal(read.weights_[name], weight)
        assert read.weights_[name].dtype == np.float32
    assert read.set_params(device="cpu").score(TEXTS) == pytest.approx(lm.score(TEXTS), abs=1e-5)


def test_the_pooling_that_a_model_recommends_stays(tmp_path):
    lm = trained(None)
    lm.config_["pooling"] = ["mean", "max"]
    lm.set_params(warm_start=True, checkpoint_dir=tmp_path).fit(TEXTS, X_val=TEXTS[:3])
    assert import_model(tmp_path / "best.safetensors").config["pooling"] == ["mean", "max"]
    assert lm.config_["pooling"] == ["mean", "max"]


def test_the_best_one_is_that_of_the_lowest_loss(tmp_path):
    lm = trained(tmp_path, learning_rate=0.5, max_steps=12)
    rows = lm.validation_history_
    best = ByteMLSTMLanguageModel.from_pretrained(tmp_path / "best.safetensors")
    row = rows.loc[rows["bits_per_byte"].idxmin()]
    assert (best.n_steps_, best.config_["bits_per_byte"]) == (row["step"], row["bits_per_byte"])


def test_a_run_without_validation_says_nothing_of_its_bits_per_byte(tmp_path):
    ByteMLSTMLanguageModel(4, batch_size=4, seq_length=16, checkpoint_dir=tmp_path).fit(TEXTS)
    (path,) = tmp_path.glob("step-*.safetensors")
    assert "bits_per_byte" not in import_model(path).config


def test_validations_of_an_earlier_run_are_not_the_run_s(tmp_path):
    lm = trained(None).set_params(checkpoint_dir=tmp_path, warm_start=True).fit(TEXTS)
    assert len(lm.validation_history_) > 0
    for path in tmp_path.glob("step-*.safetensors"):
        assert "bits_per_byte" not in import_model(path).config


def test_damage_is_told_from_another_kind_of_file(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged checkpoint .*hash.* take another of its folder"):
        import_model(path)


@pytest.mark.parametrize("key", ["run", "values"])
@pytest.mark.parametrize("content", ["[]", "{}", "null", "7", "{"])
def test_a_header_without_a_model_is_damage(path, rewrite, key, content):
    rewrite(lambda header, tensors: header.update({key: content}))
    with pytest.raises(ValueError, match="damaged checkpoint"):
        import_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run, tensors: run.update(hidden_size=10**9), "damaged checkpoint"),
        (lambda run, tensors: run.update(hidden_size=9), "damaged checkpoint .*size mismatch"),
        (lambda run, tensors: run.update(n_layers=10**9), "makes no sense"),
        (lambda run, tensors: run.update(preprocessor="encode"), "makes no sense"),
        (lambda run, tensors: run.update(cell="gru"), "'mlstm' or 'lstm'"),
        (lambda run, tensors: tensors.pop("model.embedding"), "Missing key.*embedding"),
        (
            lambda run, tensors: tensors.pop("model.layers.0.parametrizations.wh.original1"),
            "damaged checkpoint",
        ),
        (
            lambda run, tensors: tensors.update(
                {"model.layers.0.parametrizations.wh.original0": torch.ones(3)}
            ),
            r"damaged checkpoint .*size mismatch for layers\.0\.parametrizations\.wh",
        ),
    ],
)
def test_what_does_not_fit_is_refused(path, rewrite, change, message):
    def changed(header, tensors):
        run = json.loads(header["run"])
        change(run, tensors)
        header["run"] = json.dumps(run)

    rewrite(changed)
    with pytest.raises(ValueError, match=message):
        import_model(path)
