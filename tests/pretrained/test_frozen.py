import gc
import os
import weakref

import numpy as np
import pytest

from skdiscovery.pretrained import read_model, write_model
from skdiscovery.pretrained.frozen import read_frozen


@pytest.fixture
def write(tmp_path, random_weights):
    """Write a file with a model, and return its path."""
    config = {
        "hidden_size": 5, "embedding_size": 3, "n_layers": 1, "cell": "mlstm",
        "preprocessor": "review", "n_steps": 0, "n_bytes_seen": 0, "pooling": ["mean"],
    }  # fmt: skip

    def write(name, scale=1.0):
        weights = {name: scale * array for name, array in random_weights().items()}
        write_model(tmp_path / name, weights, config)
        return tmp_path / name

    return write


def test_it_is_the_model_in_the_file(write, assert_same_weights):
    path = write("a")
    weights, config = read_model(path)
    frozen = read_frozen(path)
    assert_same_weights(frozen.weights, weights)
    assert frozen.config == config


def test_all_share_the_arrays_and_nothing_else(write):
    path = write("a")
    one, other = read_frozen(path), read_frozen(path)
    assert all(other.weights[name] is array for name, array in one.weights.items())
    one.config["pooling"].append("max")
    del one.weights["embedding"]
    third = read_frozen(path)
    assert third.config["pooling"] == ["mean"]
    assert "embedding" in third.weights


def test_nobody_can_write_to_the_arrays(write):
    for array in read_frozen(write("a")).weights.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_another_file_is_another_model(write):
    one, other = read_frozen(write("a")), read_frozen(write("b", scale=2.0))
    np.testing.assert_array_equal(other.weights["embedding"], 2 * one.weights["embedding"])


def test_a_file_that_was_replaced_is_read_anew(write):
    one = read_frozen(write("a"))
    other = read_frozen(write("a", scale=2.0))
    np.testing.assert_array_equal(other.weights["embedding"], 2 * one.weights["embedding"])


def test_a_folder_of_which_a_file_was_replaced_is_read_anew(openai_toy):
    one = read_frozen(openai_toy)
    assert read_frozen(openai_toy).weights["embedding"] is one.weights["embedding"]
    np.save(openai_toy / "new.npy", np.load(openai_toy / "0.npy") + 1)
    os.replace(openai_toy / "new.npy", openai_toy / "0.npy")
    np.testing.assert_allclose(
        read_frozen(openai_toy).weights["embedding"], one.weights["embedding"] + 1
    )


def test_a_file_of_the_same_length_and_date_in_its_place_is_read_anew(write):
    path, other = write("a"), write("b", scale=2.0)
    one = read_frozen(path)
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    os.replace(other, path)
    np.testing.assert_array_equal(
        read_frozen(path).weights["embedding"], 2 * one.weights["embedding"]
    )


def test_a_file_that_was_written_over_is_read_anew(write):
    path, other = write("a"), write("b", scale=2.0)
    expected = 2 * read_frozen(path).weights["embedding"]
    path.write_bytes(other.read_bytes())
    np.testing.assert_array_equal(read_frozen(path).weights["embedding"], expected)


def test_one_model_is_kept(write):
    one = weakref.ref(read_frozen(write("a")).weights["embedding"])
    read_frozen(write("b"))
    gc.collect()
    assert one() is None


def test_a_folder_of_which_a_file_was_written_over_is_read_anew(openai_toy):
    expected = read_frozen(openai_toy).weights["embedding"] + 1
    np.save(openai_toy / "0.npy", np.load(openai_toy / "0.npy") + 1)
    np.testing.assert_allclose(read_frozen(openai_toy).weights["embedding"], expected)
