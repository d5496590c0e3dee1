import hashlib
import json
import os
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from skdiscovery.nn.model import Architecture
from skdiscovery.nn.weights import weight_shapes
from skdiscovery.ops import Int8Matrix
from skdiscovery.pretrained import format as model_format
from skdiscovery.pretrained import read_model, write_model

CONFIG = {
    "hidden_size": 4,
    "embedding_size": 3,
    "n_layers": 2,
    "cell": "mlstm",
    "preprocessor": "review",
    "n_steps": 7,
    "n_bytes_seen": 900,
    "pooling": ["mean", "max"],
}


def random_weights(config=CONFIG, seed=0):
    random = np.random.default_rng(seed)
    names = ("hidden_size", "embedding_size", "n_layers", "cell")
    shapes = weight_shapes(Architecture(**{name: config[name] for name in names}))
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def path(tmp_path):
    """A file that holds a model."""
    path = tmp_path / "model.safetensors"
    write_model(path, random_weights(), CONFIG)
    return path


def rewrite(path, *, arrays=None, metadata=None):
    """Write a file as ``write_model`` would never do."""
    if metadata is None:
        metadata = {"skdiscovery": json.dumps({"format_version": 1, **CONFIG})}
    safetensors.numpy.save_file(random_weights() if arrays is None else arrays, path, metadata)


def assert_refused(path, message=None):
    with pytest.raises(ValueError, match=message) as caught:
        read_model(path)
    assert os.fspath(path) in str(caught.value)


@pytest.mark.parametrize("cell", ["mlstm", "lstm"])
def test_a_model_comes_back_as_it_was_written(tmp_path, cell):
    config = CONFIG | {"cell": cell}
    weights = random_weights(config)
    write_model(tmp_path / "model", weights, config)

    read, read_config = read_model(tmp_path / "model")

    assert read.keys() == weights.keys()
    for name, array in weights.items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], array)
    assert {name: read_config[name] for name in config} == config
    assert os.listdir(tmp_path) == ["model"]


def test_half_precision_keeps_three_digits_in_half_the_space(path):
    half = path.with_name("half.safetensors")
    weights = random_weights()
    write_model(half, weights, CONFIG, dtype="float16")

    read, _ = read_model(half)

    assert half.stat().st_size < 0.6 * path.stat().st_size
    for name, array in weights.items():
        assert read[name].dtype == np.float32
        np.testing.assert_allclose(read[name], array, rtol=1e-3, atol=1e-6)


def test_int8_keeps_recurrent_matrices_as_they_are_multiplied(path):
    narrow = path.with_name("int8.safetensors")
    weights = random_weights()
    write_model(narrow, weights, CONFIG, dtype="int8")

    read, config = read_model(narrow)

    assert config == read_model(path)[1]
    for name, array in weights.items():
        assert read[name].dtype == np.float32
        if name.endswith((".wh", ".wmh")):
            step = np.abs(array).max(axis=1, keepdims=True) / 127
            assert (np.abs(read[name] - array) <= 0.501 * step).all()
            before, after = (Int8Matrix.of(torch.from_numpy(w)) for w in (array, read[name]))
            assert torch.equal(before.values, after.values)
        else:
            np.testing.assert_allclose(read[name], array, rtol=1e-3, atol=1e-6)
    again = path.with_name("again.safetensors")
    write_model(again, read, CONFIG, dtype="int8")
    for name, array in read_model(again)[0].items():
        np.testing.assert_allclose(array, read[name], rtol=1e-6)


def test_an_int8_file_is_a_quarter_of_a_float32_one(tmp_path):
    config = CONFIG | {"hidden_size": 128, "n_layers": 1}
    weights = random_weights(config)
    for dtype in ("float32", "int8"):
        write_model(tmp_path / dtype, weights, config, dtype=dtype)
    sizes = [(tmp_path / dtype).stat().st_size for dtype in ("float32", "int8")]
    assert sizes[1] < 0.35 * sizes[0]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_arrays_in_any_memory_order_are_written_as_they_read(tmp_path, dtype):
    weights = random_weights()
    in_columns = {name: np.asfortranarray(array) for name, array in weights.items()}
    for name, given in (("rows", weights), ("columns", in_columns)):
        write_model(tmp_path / name, given, CONFIG, dtype=dtype)
    expected, _ = read_model(tmp_path / "rows")
    for name, array in read_model(tmp_path / "columns")[0].items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_path_may_be_a_string(path):
    assert read_model(os.fspath(path))[1] == read_model(path)[1]


def test_the_file_has_the_permissions_of_any_new_file(path):
    plain = path.with_name("plain")
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_reading_runs_no_code_and_warns_of_nothing(path):
    assert b"pickle" not in path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_model(path)


def test_a_configuration_that_is_not_json_is_refused_before_a_byte_is_written(path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        write_model(path, random_weights(), CONFIG | {"preprocessor": str.encode})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("lie", [{"pooling": ["men"]}, {"n_layers": 0}, {"cell": "gru"}], ids=str)
def test_a_configuration_that_could_not_be_read_is_not_written(path, lie):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"configuration of .*model.safetensors"):
        write_model(path, random_weights(), CONFIG | lie)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_what_was_there(small_disk):
    path = small_disk(40_960) / "model.safetensors"
    path.write_bytes(b"old")
    config = CONFIG | {"hidden_size": 64}
    with pytest.raises(
        OSError, match=r"(?i)model.safetensors.* cannot be written: .*no space left"
    ):
        write_model(path, random_weights(config), config)
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("dtype", ["int4", "bool", "float33"])
def test_other_types_are_not_written(tmp_path, dtype):
    with pytest.raises(ValueError, match=r"dtype.*float32.*float16.*int8"):
        write_model(tmp_path / "model", random_weights(), CONFIG, dtype=dtype)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(path, monkeypatch, error):
    def interrupted(arrays, filename, metadata):
        Path(filename).write_bytes(b"half of it")
        raise error

    before = path.read_bytes()
    monkeypatch.setattr(model_format, "save_file", interrupted)
    with pytest.raises(error):
        write_model(path, random_weights(seed=1), CONFIG)

    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_write_replaces_the_old_file(path):
    write_model(path, random_weights(seed=1), CONFIG)
    np.testing.assert_array_equal(
        read_model(path)[0]["embedding"], random_weights(seed=1)["embedding"]
    )


def test_files_of_equal_models_are_equal(path):
    whole = path.read_bytes()
    for _ in range(10):
        write_model(path, random_weights(), CONFIG)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    size_and_hash = f"{path.stat().st_size:,} bytes and SHA-256 {digest}"
    assert_refused(path, f"not a model of skdiscovery.*{size_and_hash}")


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_a_file_of_which_any_byte_was_altered_is_refused(tmp_path, dtype):
    path = tmp_path / "model.safetensors"
    write_model(path, random_weights(), CONFIG, dtype=dtype)
    whole = path.read_bytes()
    start_of_arrays = 8 + int.from_bytes(whole[:8], "little")
    for position in (start_of_arrays, (start_of_arrays + len(whole)) // 2, len(whole) - 1):
        altered = bytearray(whole)
        altered[position] ^= 1
        path.write_bytes(altered)
        digest = hashlib.sha256(altered).hexdigest()
        size_and_hash = f"{len(whole):,} bytes and SHA-256 {digest}"
        assert_refused(path, f"altered or damaged.*{size_and_hash}")


def test_a_file_of_which_the_configuration_was_altered_is_refused(path):
    altered = path.read_bytes().replace(b"review", b"nvidia")
    assert altered != path.read_bytes()
    path.write_bytes(altered)
    assert_refused(path, "altered or damaged")


def test_a_file_without_a_checksum_is_read(path):
    rewrite(path)
    assert b"sha256" not in path.read_bytes()
    np.testing.assert_array_equal(read_model(path)[0]["embedding"], random_weights()["embedding"])


@pytest.mark.parametrize(
    "content", [b"Just a text, and no model.\n" * 9, b"\xff" * 100, b"\x80\x04K\x01."]
)
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    assert_refused(path, "not a model of skdiscovery")


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_a_safetensors_file_of_something_else_is_refused(path, metadata):
    rewrite(path, arrays={"lm_head": np.zeros((2, 2), np.float32)}, metadata=metadata)
    assert_refused(path, "something else")


def test_a_safetensors_file_with_types_that_numpy_lacks_is_refused(path):
    safetensors.torch.save_file({"lm_head": torch.zeros(2, dtype=torch.bfloat16)}, path)
    assert_refused(path, "something else")


@pytest.mark.parametrize(
    "header",
    [
        "not JSON",
        "[]",
        "{}",
        json.dumps({"format_version": 1}),
        json.dumps({"format_version": 1, **CONFIG, "hidden_size": "4"}),
        json.dumps({"format_version": 1, **CONFIG, "n_layers": -1}),
        json.dumps({"format_version": 1, **CONFIG, "bits_per_byte": "1.5"}),
    ],
)
def test_a_header_without_a_whole_configuration_is_refused(path, header):
    rewrite(path, metadata={"skdiscovery": header})
    assert_refused(path)


@pytest.mark.parametrize(
    "lie",
    [
        {"n_layers": 10**12},
        {"hidden_size": 10**12},
        {"hidden_size": 4.0},
        {"embedding_size": True},
        {"n_layers": 0},
        {"preprocessor": "eval"},
        {"preprocessor": ["review"]},
        {"preprocessor": {}},
        {"pooling": 5},
        {"pooling": ["mean", "median"]},
        {"pooling": [["mean"]]},
        {"n_steps": "many"},
        {"n_bytes_seen": -1},
        {"n_steps": None},
        {"bits_per_byte": None},
        {"bits_per_byte": True},
        {"bits_per_byte": float("nan")},
        {"bits_per_byte": float("inf")},
        {"bits_per_byte": 10**400},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_sense_is_refused(path, lie, memory_growth):
    header = json.dumps({"format_version": 1, **CONFIG, **lie})
    rewrite(path, metadata={"skdiscovery": header})
    assert memory_growth(lambda: assert_refused(path)) < 20e6


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format_version": 1, "hidden_size": ' + "9" * 5000 + "}",
        json.dumps({"format_version": 1, **CONFIG})[:-1] + ', "hidden_size": 1e999}',
        json.dumps({"format_version": 1, **CONFIG})[:-1] + ', "hidden_size": NaN}',
    ],
    ids=["lists in lists", "objects in objects", "a long number", "infinity", "NaN"],
)
def test_json_that_is_a_trap_is_refused(path, header):
    rewrite(path, metadata={"skdiscovery": header})
    assert_refused(path)


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}},
        {"a": {"dtype": "F32", "shape": [2**63, 4], "data_offsets": [0, 16]}},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
        {"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
    ],
    ids=str,
)
def test_arrays_that_claim_more_than_the_file_holds_are_refused(path, header, memory_growth):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    assert memory_growth(lambda: assert_refused(path, "not a model of skdiscovery")) < 20e6


@pytest.mark.parametrize("length", [2**20, 2**40, 2**63, 2**64 - 1])
def test_a_header_that_claims_more_than_the_file_holds_is_refused(path, length, memory_growth):
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    assert memory_growth(lambda: assert_refused(path, "not a model of skdiscovery")) < 20e6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64, torch.bool])
def test_weights_of_other_types_are_refused(path, dtype):
    arrays = {name: torch.ones(w.shape, dtype=dtype) for name, w in random_weights().items()}
    metadata = {"skdiscovery": json.dumps({"format_version": 1, **CONFIG})}
    safetensors.torch.save_file(arrays, path, metadata)
    assert_refused(path, "embedding: expected a type of .*'F32'")


@pytest.mark.parametrize("scales", [None, np.ones(3, np.float32), np.ones(16, np.int8)])
def test_int8_needs_scales_of_its_rows(path, scales):
    arrays = dict(random_weights())
    name = "layers.0.wh"
    arrays[name] = np.ones(arrays[name].shape, np.int8)
    if scales is not None:
        arrays[name + ".scales"] = scales
    rewrite(path, arrays=arrays)
    assert_refused(path, "layers.0.wh.scales: expected")


@pytest.mark.parametrize("name", ["embedding", "layers.0.wx", "head.weight"])
def test_only_recurrent_matrices_may_be_int8(path, name):
    arrays = dict(random_weights())
    arrays[name] = np.ones(arrays[name].shape, np.int8)
    arrays[name + ".scales"] = np.ones(len(arrays[name]), np.float32)
    rewrite(path, arrays=arrays)
    assert_refused(path, f"{name}: expected a type")


def test_an_unknown_cell_is_refused(path):
    # An LSTM's arrays, so that only the name is wrong.
    header = json.dumps({"format_version": 1, **CONFIG, "cell": "gru"})
    arrays = random_weights(CONFIG | {"cell": "lstm"})
    rewrite(path, arrays=arrays, metadata={"skdiscovery": header})
    assert_refused(path, "gru")


def test_a_file_of_a_later_format_is_refused(path):
    rewrite(path, metadata={"skdiscovery": json.dumps({"format_version": 99, **CONFIG})})
    assert_refused(path, r"format version 99.*reads 1.*upgrade")


def test_a_missing_array_is_refused_by_its_name(path):
    arrays = random_weights()
    del arrays["layers.1.wmh"]
    rewrite(path, arrays=arrays)
    assert_refused(path, r"layers\.1\.wmh: expected \(4, 4\), got nothing")


def test_an_array_of_another_shape_is_refused_by_its_name(path):
    rewrite(path, arrays=random_weights() | {"head.bias": np.zeros(255, np.float32)})
    assert_refused(path, r"head\.bias: expected \(256,\), got \(255,\)")


def test_an_array_too_many_is_refused_by_its_name(path):
    rewrite(path, arrays=random_weights() | {"layers.2.wx": np.zeros((2, 2), np.float32)})
    assert_refused(path, r"layers\.2\.wx: expected nothing, got \(2, 2\)")
