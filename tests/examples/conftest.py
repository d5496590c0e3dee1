"""Scripts as modules; a tiny model for them, and one that can tell labelled texts apart."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skdiscovery import ByteMLSTMLanguageModel
from skdiscovery.datasets import load_reviews

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMON_FLAGS = """
-config -rank -distributed -world_size -verbose -seed -experiment_dir -experiment_name -load_model
-should_test -model_dir -rnn_type -fuse_lstm -layers -rnn_size -embed_size -weight_norm -lstm_only
-dropout -cuda -fp16 -num_gpus -benchmark -train -valid -test -seq_length -batch_size
-eval_seq_length -eval_batch_size -data_size -data_set_type -loose_json -transpose -preprocess
-shuffle -delim -binarize_sent -split -lazy -text_key -label_key -eval_text_key -eval_label_key
-drop_unlabeled -no_wrap -persist_state -cache -num_shards -val_shards -test_shards
"""


@pytest.fixture(scope="session")
def load_script():
    """Return a function that imports an example by its name, which may import others."""

    def load_script(name):
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield load_script


@pytest.fixture(scope="session")
def common_flags():
    """The flags that all scripts of sentiment-discovery have."""
    return set(COMMON_FLAGS.split())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A file with a model of two layers of 16 neurons."""
    lm = ByteMLSTMLanguageModel(
        16, embedding_size=8, n_layers=2, max_steps=3, batch_size=2, seq_length=16, device="cpu",
        random_state=0,
    ).fit(["A film to see.", "Not a film to see."])  # fmt: skip
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    lm.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tables():
    """240, 80 and 80 of the reviews, in the columns that the scripts expect.

    A tiny model knows nothing of sentiment. What it can tell, roughly, is whether words are long.
    """
    frame = load_reviews(as_frame=True).frame.rename(columns={"text": "sentence"})
    frame = frame.sample(frac=1, random_state=0)
    word_length = frame["sentence"].str.split().map(lambda words: np.mean([*map(len, words)]))
    frame["label"] = (word_length > word_length.median()).astype(int)
    frame["kind"] = pd.qcut(word_length, 3, labels=["long", "medium", "short"][::-1]).astype(str)
    parts = frame[:240], frame[240:320], frame[320:]
    return dict(zip(("train", "valid", "test"), parts, strict=True))


@pytest.fixture(scope="session")
def language_model(tmp_path_factory, tables):
    """The file of a model with 16 neurons, whose name is "tiny.v1"."""
    path = tmp_path_factory.mktemp("model") / "tiny.v1.safetensors"
    model = ByteMLSTMLanguageModel(
        hidden_size=16,
        embedding_size=8,
        batch_size=8,
        seq_length=32,
        max_epochs=5,
        max_steps=100,
        learning_rate=0.05,
        device="cpu",
        random_state=0,
    ).fit(tables["train"]["sentence"])
    model.config_["pooling"] = "mean"
    model.save_pretrained(path)
    return path


@pytest.fixture
def said_of_a_folder(tiny_model, tmp_path, capsys, monkeypatch):
    """Run a script of the reviews that ship where its output is a folder; return its error."""

    def run(script):
        monkeypatch.setattr(script, "load_reviews", None)
        folder = tmp_path / "taken.png"
        folder.mkdir()
        with pytest.raises(SystemExit, match="2"):
            script.main([f"--language-model={tiny_model}", f"--output={folder}"])
        return capsys.readouterr().err

    return run
