import json
import math
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from skdiscovery import ByteMLSTMLanguageModel, MLSTMFeaturizer
from skdiscovery.nn.model import Architecture
from skdiscovery.nn.weights import weight_shapes
from skdiscovery.pretrained import import_model, read_model, write_model
from skdiscovery.pretrained.npy_folders import export_openai

CONFIG = {
    "hidden_size": 5, "embedding_size": 3, "n_layers": 1, "cell": "mlstm",
    "preprocessor": "review", "n_steps": 7, "n_bytes_seen": 900, "pooling": "mean",
}  # fmt: skip


@pytest.fixture
def v0_file(tmp_path, toy_state_dict):
    """The toy model as a checkpoint of sentiment-discovery v0."""
    torch.save({"state_dict": toy_state_dict(), "epoch": 0}, tmp_path / "e0.pt")
    return tmp_path / "e0.pt"


@pytest.fixture
def own_file(tmp_path, random_weights):
    """A file of save_pretrained."""
    write_model(tmp_path / "own.safetensors", random_weights(), CONFIG)
    return tmp_path / "own.safetensors"


# What the code of OpenAI and of NVIDIA computes


@pytest.mark.data
def test_the_sentiment_neuron_of_openais_weights_says_what_it_said_there():
    folder = Path(os.environ["SKDISCOVERY_DATA"]) / "models" / "openai"
    if not folder.is_dir():
        pytest.skip(f"{folder} has no OpenAI's 0.npy to 14.npy")
    said = {  # github.com/openai/generating-reviews-discovering-sentiment/issues/21
        "it was a nice day": 0.012658,
        "it was a great day": 0.371533,
        "it was a bad day": -0.499269,
        "It was a wonderful day": 0.503395,
        "It was an excellent day": 0.44557,
        "It was a super excellent day": 0.623401,
        "It was such a bad bad day ": -0.858701,
        "It was such a bad bad bad day": -1.04497,
    }
    featurizer = MLSTMFeaturizer(folder, neurons=[2388], precision="float32")
    np.testing.assert_allclose(featurizer.fit_transform([*said])[:, 0], [*said.values()], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "cells", "nats"),
    [
        ("Great movie!", [-0.4532214, -0.14889218, 0.19397846, 0.49368783], 5.65170749),
        ("  ok ", [-0.5157273, -0.17691979, 0.14974921, 0.48476315], 5.79952547),
        ("awful,\njust awful.", [-0.49817864, -0.23987999, 0.06985862, 0.31326345], 5.55723425),
        ("", [-0.54869779, -0.22422199, 0.0570618, 0.35020525], 6.04503747),
    ],
)
def test_openais_model_gives_openais_features_and_loss(openai_toy, text, cells, nats):
    features = MLSTMFeaturizer(openai_toy, device="cpu", precision="float64").fit_transform([text])
    np.testing.assert_allclose(features[0], cells, atol=2e-7)
    model = ByteMLSTMLanguageModel.from_pretrained(os.fspath(openai_toy), device="cpu")
    assert -model.score([text]) * math.log(2) == pytest.approx(nats, abs=1e-6)
    (trace,) = model.activations([text])
    np.testing.assert_allclose(trace[-1], cells, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("Great<br /> movie!", [-0.37429519, -0.13830014, 0.23334929, 0.32918005]),
        (" ok", [-0.48360138, -0.05591166, 0.25085931, 0.16240206]),
        ("awful,  just\tawful.", [-0.39570262, -0.08719686, 0.16055468, 0.41004364]),
    ],
)
def test_sentiment_discoverys_model_gives_its_features(v0_file, text, cells):
    features = MLSTMFeaturizer(v0_file, device="cpu").fit_transform([text])
    np.testing.assert_allclose(features[0], cells, atol=1e-6)


def test_an_imported_model_is_kept_as_one_file(v0_file, tmp_path, assert_same_weights):
    model = ByteMLSTMLanguageModel.from_pretrained(v0_file)
    model.save_pretrained(tmp_path / "model.safetensors")
    weights, config = read_model(tmp_path / "model.safetensors")
    assert_same_weights(weights, import_model(v0_file).weights)
    assert config["preprocessor"] == model.preprocessor == "nvidia"
    assert (model.n_steps_, model.hidden_size, model.embedding_size) == (0, 4, 3)


def test_an_imported_model_with_another_preprocessor_warns(openai_toy):
    model = ByteMLSTMLanguageModel.from_pretrained(openai_toy, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score(["ok"])
    model.set_params(preprocessor="nvidia")
    message = r"trained on text from preprocessor='openai', and reads .*preprocessor='nvidia'"
    for use in (model.score, model.activations, MLSTMFeaturizer(model, device="cpu").fit_transform):
        with pytest.warns(UserWarning, match=message):
            use(["ok"])


def test_an_imported_model_trains_on(v0_file):
    texts = ["What a lovely film!"] * 20
    model = ByteMLSTMLanguageModel.from_pretrained(v0_file, device="cpu")
    before = model.score(texts)
    model.set_params(batch_size=4, seq_length=16, learning_rate=0.01)
    assert model.partial_fit(texts).score(texts) > before


# What a file is, whatever its name


def test_a_file_of_ours_is_read_as_it_is(own_file, random_weights, assert_same_weights):
    system, weights, config = import_model(own_file)
    assert system == "skdiscovery"
    assert_same_weights(weights, random_weights())
    assert {name: config[name] for name in CONFIG} == CONFIG


@pytest.mark.parametrize("is_zip", [True, False])
def test_the_name_does_not_matter(tmp_path, toy_state_dict, is_zip):
    path = tmp_path / "model.safetensors"
    torch.save(toy_state_dict(), path, _use_new_zipfile_serialization=is_zip)
    assert import_model(path).system == "sentiment-discovery v0"


def test_a_file_of_ours_whose_first_bytes_are_a_pickles_is_ours(tmp_path, random_weights):
    # The length of the header: 0x280 at its shortest, lengthened until it is 0x?80.
    path = tmp_path / "model"
    for n_blanks in range(0, 256, 8):
        write_model(path, random_weights(), CONFIG | {"note": " " * n_blanks})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert import_model(path).system == "skdiscovery"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"got a file that begins with b''"),
        (b"I loved it.\n", r"expected a whole \.safetensors .* a \.pt file .* begins with b'I lov"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), r"nor one that it can import.* an HDF5 file, as Keras"),
        (b"\x1f\x8b\x08\x00" + bytes(99), r"got a gzip archive: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid ", r"got a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<html>", r"got a web page"),
        (b"PK\x03\x04" + bytes(99), r"not a file of torch\.save"),
        (b"\x80\x02}q\x00.", r"not a file of torch\.save"),
    ],
    ids=["empty", "text", "Keras", "gzip", "Git LFS", "HTML", "zip", "pickle"],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, message):
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        ByteMLSTMLanguageModel.from_pretrained(path)
    assert os.fspath(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_file_of_ours_that_is_cut_short_is_refused_as_such(own_file, share):
    whole = own_file.read_bytes()
    own_file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="expected a whole"):
        import_model(own_file)


def test_one_array_of_a_model_is_refused_with_what_to_give(openai_toy):
    with pytest.raises(ValueError, match=r"1\.npy' is one array.*give the folder"):
        import_model(openai_toy / "1.npy")


@pytest.mark.parametrize("name", ["", ".", "no/such/model"])
def test_what_is_not_there_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"without a model|No language model"):
        MLSTMFeaturizer(name).fit()


def test_the_order_of_gates_is_of_state_dicts_only(v0_file, openai_toy, own_file):
    swapped = import_model(v0_file, gates="ifuo").weights["layers.0.bias"]
    i, f, o, u = np.split(import_model(v0_file, gates="ifou").weights["layers.0.bias"], 4)
    np.testing.assert_array_equal(swapped, np.concatenate([i, f, u, o]))
    for path in (openai_toy, own_file):
        with pytest.raises(ValueError, match=r"gates='ifou' is for \.pt files"):
            import_model(path, gates="ifou")


@pytest.mark.parametrize("use", [ByteMLSTMLanguageModel.from_pretrained, MLSTMFeaturizer.fit])
def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path, hostile, toy_state_dict, use):
    bomb, ran = hostile
    path = tmp_path / "model.pt"
    torch.save({"state_dict": toy_state_dict(), "optim": bomb}, path)
    with pytest.raises(ValueError, match="which is code"):
        use(path if use != MLSTMFeaturizer.fit else MLSTMFeaturizer(path))
    assert not ran.exists()


def test_a_model_may_be_deleted_once_it_is_read(openai_toy):
    model = ByteMLSTMLanguageModel.from_pretrained(openai_toy, device="cpu")
    before = model.score(["ok"])
    shutil.rmtree(openai_toy)
    assert model.score(["ok"]) == before


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory):
    """A small model as a file of each kind, by the name of a file."""
    folder = tmp_path_factory.mktemp("whole")
    random = np.random.default_rng(0)
    shapes = weight_shapes(Architecture(2, 1))
    weights = {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    config = {"hidden_size": 2, "embedding_size": 1, "n_layers": 1, "cell": "mlstm"}
    config |= {"preprocessor": "review", "n_steps": 1, "n_bytes_seen": 1, "pooling": "mean"}
    write_model(folder / "ours.safetensors", weights, config)
    export_openai(folder / "openai", weights, config)
    layer = "rnn.layers.0"
    state = {"embedder.weight": weights["embedding"], f"{layer}.wh.bias": weights["layers.0.bias"]}
    for name in ("wx", "wh", "wmx", "wmh"):
        state[f"{layer}.{name}.weight"] = weights[f"layers.0.{name}"]
    state |= {"rnn.h2o.weight": weights["head.weight"], "rnn.h2o.bias": weights["head.bias"]}
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    for name, is_zip in (("zip.pt", True), ("pickles.pt", False)):
        torch.save(tensors, folder / name, _use_new_zipfile_serialization=is_zip)
    return folder


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore")  # of what numpy and torch think of the damage
@given(st.data())
def test_any_file_gives_a_model_or_an_error_that_names_it(whole_files, damaged, data):
    name = data.draw(st.sampled_from(["ours.safetensors", "zip.pt", "pickles.pt", "openai"]))
    path = target = whole_files / f"damaged-{os.getpid()}-{name}"
    source = whole_files / name
    if source.is_dir():
        shutil.copytree(source, path, dirs_exist_ok=True)
        array = data.draw(st.sampled_from(sorted(file.name for file in source.iterdir())))
        source, target = source / array, path / array
    whole = source.read_bytes()
    # Headers come first, and it is they that say what to do.
    head = whole[: data.draw(st.sampled_from([100, 1500, len(whole)]))]
    content = data.draw(damaged(head)) + whole[len(head) :]
    target.write_bytes(data.draw(st.just(content) | st.binary(max_size=60)))
    problem = ""
    try:
        model = import_model(path)
    except ValueError as error:
        problem = str(error)
    if problem:
        assert os.fspath(path) in problem
    else:
        expected = weight_shapes(Architecture.from_config(model.config))
        assert {name: array.shape for name, array in model.weights.items()} == expected
        assert all(array.dtype == np.float32 for array in model.weights.values())


@pytest.mark.fuzz
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda values: (
            st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3)
        ),
        max_leaves=6,
    ),
    st.data(),
)
def test_any_configuration_gives_a_model_or_an_error(whole_files, value, data):
    with safe_open(whole_files / "ours.safetensors", framework="numpy") as file:
        config = json.loads(file.metadata()["skdiscovery"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = data.draw(st.sampled_from(sorted(config)))
    path = whole_files / f"configured-{os.getpid()}.safetensors"
    save_file(arrays, path, {"skdiscovery": json.dumps(config | {name: value})})
    problem = ""
    try:
        model = ByteMLSTMLanguageModel.from_pretrained(path)
    except ValueError as error:
        problem = str(error)
    if problem:
        assert os.fspath(path) in problem
    else:
        vectors = MLSTMFeaturizer(model, device="cpu").fit_transform(["a text"])
        assert vectors.shape[0] == 1
