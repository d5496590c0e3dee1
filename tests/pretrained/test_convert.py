import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.pretrained import find_model, import_model, read_model, write_model
from skdiscovery.pretrained.convert import main


@pytest.fixture
def convert(capsys):
    """Run the command line, and return what it prints."""

    def run(*arguments):
        main([os.fspath(argument) for argument in arguments])
        return capsys.readouterr().out

    return run


def test_a_model_of_openai_becomes_one_file(convert, openai_toy, tmp_path, assert_same_weights):
    printed = convert(openai_toy, tmp_path / "model.safetensors")
    weights, config = read_model(tmp_path / "model.safetensors")
    imported = import_model(openai_toy)
    assert_same_weights(weights, imported.weights)
    assert {name: config[name] for name in imported.config} == imported.config
    assert "found: OpenAI\n" in printed
    n_weights = sum(array.size for array in weights.values())
    assert f"mlstm, 1 layer(s) of 4 neurons, embedding of 3, {n_weights:,} weights" in printed
    assert "preprocessor 'openai'" in printed
    assert f"written: {tmp_path / 'model.safetensors'} (0.0 MB)" in printed


def test_bits_per_byte_tell_whether_a_model_was_read_as_it_should_be(convert, tmp_path):
    def bits(*arguments):
        printed = convert(*arguments)
        return float(re.search(r"plain English: ([\d.]+) bits per byte", printed)[1])

    weights, _ = read_model(find_model("default"))
    names = {"w_ih": "wx", "w_hh": "wh", "w_mih": "wmx", "w_mhh": "wmh", "b_ih": "bias"}
    rnn = {f"rnns.0.{new}": weights[f"layers.0.{old}"] for new, old in names.items()}
    rnn["rnns.0.b_hh"] = np.zeros_like(weights["layers.0.bias"])
    state = {
        "encoder": {"encoder": {"weight": weights["embedding"]}, "rnn": rnn},
        "decoder": {part: weights[f"head.{part}"] for part in ("weight", "bias")},
    }
    torch.save(as_tensors(state), tmp_path / "v02.pt")
    target = tmp_path / "model.safetensors"
    assert bits(tmp_path / "v02.pt", target, "--gates", "ifou") == bits("default", target) < 2.5
    assert bits(tmp_path / "v02.pt", target) > 4


def as_tensors(arrays):
    if isinstance(arrays, dict):
        return {name: as_tensors(array) for name, array in arrays.items()}
    return torch.from_numpy(arrays)


@pytest.mark.parametrize("kind", ["v0", "port"])
def test_models_of_others_go_to_openais_layout_and_back(
    convert, tmp_path, toy_state_dict, port_folder, random_weights, assert_same_weights, kind
):
    source = tmp_path / "source"
    if kind == "v0":
        torch.save(toy_state_dict(), source)
    else:
        port_folder(source, random_weights(6, 2))
    convert(source, tmp_path / "openai", "--to", "openai")
    convert(tmp_path / "openai", tmp_path / "back")
    before, after = import_model(source), import_model(tmp_path / "back")
    assert_same_weights(after.weights, before.weights, rtol=3e-7)
    assert after.config["preprocessor"] == "openai"

    texts = ["Great movie!", "awful"]
    models = [ByteMLSTMLanguageModel.from_pretrained(path) for path in (source, tmp_path / "back")]
    scores = [model.score(texts) for model in models]
    assert scores[1] == pytest.approx(scores[0], rel=1e-6)


def test_an_export_has_one_dtype(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        main(["default", str(tmp_path / "default"), "--to", "openai", "--dtype", "float16"])
    assert "--dtype float16: OpenAI's files are float32" in capsys.readouterr().err


def test_an_export_says_what_the_files_do_not(convert, tmp_path, openai_toy):
    printed = convert("default", tmp_path / "default", "--to", "openai")
    assert "note: the files do not say that the model's preprocessor is 'review'" in printed
    size = sum(file.stat().st_size for file in (tmp_path / "default").iterdir())
    assert f"({size / 1e6:.1f} MB)" in printed
    assert "note" not in convert(openai_toy, tmp_path / "copy", "--to", "openai")


def test_half_precision_halves_the_file(convert, tmp_path, random_weights):
    _, config = read_model(find_model("default"))
    config |= {"hidden_size": 100, "embedding_size": 20}
    write_model(tmp_path / "source", random_weights(100, 20), config)
    convert(tmp_path / "source", tmp_path / "whole")
    convert(tmp_path / "source", tmp_path / "half", "--dtype", "float16")
    assert (tmp_path / "half").stat().st_size < 0.51 * (tmp_path / "whole").stat().st_size
    assert import_model(tmp_path / "half").config == import_model(tmp_path / "whole").config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/model", "target"], "error: No language model 'no/such/model'"),
        (["default", "no/such/folder/target"], "error: .*No such file or directory"),
        (["default", "full", "--to", "openai"], "error: .*full' is not empty"),
        (["lstm", "target", "--to", "openai"], "error: OpenAI's files hold an mLSTM"),
        (["default", "target", "--gates", "ifou"], r"error: gates='ifou' is for \.pt files"),
    ],
)
def test_an_error_is_one_line(convert, tmp_path, monkeypatch, random_weights, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/0.npy").touch()
    _, config = read_model(find_model("default"))
    config |= {"hidden_size": 5, "embedding_size": 3, "cell": "lstm"}
    write_model("lstm", random_weights(cell="lstm"), config)
    with pytest.raises(SystemExit, match=message) as caught:
        convert(*arguments)
    assert "\n" not in str(caught.value)
    assert not Path("target").exists()
    assert os.listdir("full") == ["0.npy"]


def test_the_help_says_what_can_be_converted(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    for word in ("OpenAI", "sentiment-discovery", "pytorch-sentiment-neuron", "--to", "--gates"):
        assert word in printed


def test_it_runs_as_a_module(openai_toy, tmp_path):
    command = [sys.executable, "-m", "skdiscovery.pretrained.convert", openai_toy, tmp_path / "m"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.startswith("found: OpenAI")
    assert not run.stderr
