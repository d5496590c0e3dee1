import hashlib
import os

import numpy as np
import pytest

from skdiscovery.pretrained import export_openai, import_model
from skdiscovery.pretrained.npy_folders import OPENAI, PORT, import_npy_folder

OF_ONE_LAYER = {"cell": "mlstm", "n_layers": 1}


def change(folder, file, array):
    np.save(folder / file, array)


def assert_refused(folder, message):
    with pytest.raises(ValueError, match=message) as caught:
        import_npy_folder(folder)
    assert os.fspath(folder) in str(caught.value)


def test_openais_arrays_are_turned_and_weight_norm_is_folded_in(openai_toy):
    arrays = [np.load(openai_toy / f"{number}.npy") for number in range(15)]
    system, weights, config = import_model(openai_toy)

    wh = np.concatenate(arrays[2:6], axis=1)
    assert system == "OpenAI"
    np.testing.assert_allclose(
        weights["layers.0.wh"], (wh / np.linalg.norm(wh, axis=0) * arrays[10]).T, rtol=1e-6
    )
    # The length of each row is what its file says.
    for name, lengths in [("wx", 9), ("wh", 10), ("wmx", 11), ("wmh", 12)]:
        rows = np.linalg.norm(weights[f"layers.0.{name}"], axis=1)
        np.testing.assert_allclose(rows, arrays[lengths], rtol=1e-6)
    np.testing.assert_array_equal(weights["layers.0.bias"], arrays[8])
    np.testing.assert_array_equal(weights["head.weight"], arrays[13].T)
    assert config == {
        "hidden_size": 4, "embedding_size": 3, "n_layers": 1, "cell": "mlstm",
        "preprocessor": "openai", "n_steps": 0, "n_bytes_seen": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("hidden", "embedding"), [(1, 1), (4, 3), (7, 12), (256, 64)])
def test_a_model_of_any_size_goes_there_and_back(
    tmp_path, random_weights, assert_same_weights, hidden, embedding
):
    weights = random_weights(hidden, embedding)
    export_openai(tmp_path / "model", weights, OF_ONE_LAYER)
    read = import_npy_folder(tmp_path / "model")
    assert_same_weights(read.weights, weights, rtol=3e-7)
    assert (read.config["hidden_size"], read.config["embedding_size"]) == (hidden, embedding)


def test_the_export_has_openais_shapes(tmp_path, random_weights):
    export_openai(tmp_path / "model", random_weights(5, 3), OF_ONE_LAYER)
    shapes = [(256, 3), (3, 20), *[(5, 5)] * 4, (3, 5), (5, 5), *[(20,)] * 3, (5,), (5,)]
    shapes += [(5, 256), (256,)]
    assert len(os.listdir(tmp_path / "model")) == 15
    for number, shape in enumerate(shapes):
        array = np.load(tmp_path / f"model/{number}.npy", allow_pickle=False)
        assert (array.dtype, array.shape) == (np.float32, shape)


def test_a_row_of_zeros_stays_one(tmp_path, random_weights):
    weights = random_weights()
    weights["layers.0.wmh"][2] = 0
    export_openai(tmp_path / "model", weights, OF_ONE_LAYER)
    read = import_npy_folder(tmp_path / "model").weights["layers.0.wmh"]
    np.testing.assert_array_equal(read[2], 0)
    assert read[[0, 1, 3, 4]].all()


def test_the_ports_arrays_are_turned(tmp_path, random_weights, port_folder, assert_same_weights):
    port_folder(tmp_path / "weights", random_weights(7, 3))
    system, weights, config = import_model(tmp_path / "weights")
    assert system == "pytorch-sentiment-neuron"
    assert_same_weights(weights, random_weights(7, 3))
    assert config["preprocessor"] == "openai"


def test_other_precisions_become_float32(openai_toy, assert_same_weights):
    before = import_npy_folder(openai_toy).weights
    for file in OPENAI.files:
        change(openai_toy, file, np.asfortranarray(np.load(openai_toy / file).astype(">f8")))
    assert_same_weights(import_npy_folder(openai_toy).weights, before)


def test_other_files_do_not_matter(openai_toy):
    (openai_toy / "readme.txt").write_text("The weights of 2017.")
    assert import_npy_folder(openai_toy).system == "OpenAI"


@pytest.mark.parametrize("layout", [OPENAI, PORT], ids=lambda layout: layout.system)
def test_missing_files_are_named(tmp_path, openai_toy, random_weights, port_folder, layout):
    folder = openai_toy
    if layout is PORT:
        folder = tmp_path / "port"
        port_folder(folder, random_weights())
    for file in layout.files[1:3]:
        (folder / file).unlink()
    assert_refused(folder, f"of {layout.system}: missing {', '.join(sorted(layout.files[1:3]))};")


@pytest.mark.parametrize("number", range(15))
def test_an_array_of_another_shape_is_named(openai_toy, number):
    array = np.load(openai_toy / f"{number}.npy")
    change(openai_toy, f"{number}.npy", array[:-1])
    assert_refused(openai_toy, rf"\b{number}\.npy: expected|; {number}\.npy: expected")


def test_the_message_has_both_shapes(openai_toy):
    change(openai_toy, "4.npy", np.zeros((4, 5), np.float32))
    assert_refused(openai_toy, r"model of OpenAI: 4\.npy: expected \(4, 4\), got \(4, 5\)\.")


@pytest.mark.parametrize("shape", [(), (0,), (16, 1), (2, 2, 4)])
def test_a_bias_of_any_other_shape_is_refused(openai_toy, shape):
    change(openai_toy, "8.npy", np.zeros(shape, np.float32))
    assert_refused(openai_toy, "do not fit each other|cut short")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("file", ["0.npy", "3.npy", "14.npy"])
def test_a_file_that_is_cut_short_is_named(openai_toy, file, share):
    whole = (openai_toy / file).read_bytes()
    cut = whole[: int(share * len(whole))]
    (openai_toy / file).write_bytes(cut)
    size_and_hash = f"{len(cut):,} bytes and SHA-256 {hashlib.sha256(cut).hexdigest()}"
    assert_refused(openai_toy, rf"openai/{file}' is cut short, damaged.*{size_and_hash}")


def test_a_damaged_header_gives_a_model_or_a_value_error(openai_toy):
    whole, random = (openai_toy / "8.npy").read_bytes(), np.random.default_rng(0)
    n_refused = 0
    for _ in range(100):
        content = bytearray(whole)
        content[random.integers(80)] = random.integers(256)
        (openai_toy / "8.npy").write_bytes(content)
        try:
            import_npy_folder(openai_toy)
        except ValueError as error:
            n_refused += "8.npy" in str(error)
    assert n_refused > 50


def test_an_array_of_objects_is_refused_and_nothing_runs(openai_toy, hostile):
    bomb, ran = hostile
    np.save(openai_toy / "0.npy", np.array([bomb], dtype=object), allow_pickle=True)
    assert_refused(openai_toy, r"0\.npy' is .*not an array of numbers.*Python objects")
    assert not ran.exists()


@pytest.mark.parametrize("dtype", ["int32", "bool", "U4", "complex64"])
def test_what_is_not_a_number_is_refused(openai_toy, dtype):
    change(openai_toy, "8.npy", np.zeros(16, dtype))
    assert_refused(openai_toy, r"8\.npy' .*expected floating-point numbers")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_finite_number_is_refused(openai_toy, value):
    array = np.load(openai_toy / "7.npy")
    array[1, 2] = value
    change(openai_toy, "7.npy", array)
    assert_refused(openai_toy, r"layers\.0\.wmh: it is damaged, or its training had diverged")


def test_a_folder_of_something_else_is_refused(tmp_path):
    np.save(tmp_path / "features.npy", np.zeros(3))
    assert_refused(tmp_path, r"folder without a model: expected OpenAI's 0\.npy to 14\.npy.*\.$")
    for name in ("b.pt", "a.safetensors", "config.json"):
        (tmp_path / name).touch()
    assert_refused(tmp_path, r" It has a\.safetensors, b\.pt: give the path of the file\.$")


@pytest.mark.parametrize(("cell", "n_layers"), [("lstm", 1), ("mlstm", 2)])
def test_openais_files_hold_one_layer_of_mlstm(tmp_path, random_weights, cell, n_layers):
    weights = random_weights(n_layers=n_layers, cell=cell)
    with pytest.raises(ValueError, match=rf"hold an mLSTM of one layer.*'{cell}' with {n_layers}"):
        export_openai(tmp_path / "model", weights, {"cell": cell, "n_layers": n_layers})
    assert not (tmp_path / "model").exists()


def test_a_model_is_not_written_over_another(openai_toy, random_weights):
    before = (openai_toy / "0.npy").read_bytes()
    with pytest.raises(FileExistsError, match="is not empty"):
        export_openai(openai_toy, random_weights(), OF_ONE_LAYER)
    assert (openai_toy / "0.npy").read_bytes() == before
