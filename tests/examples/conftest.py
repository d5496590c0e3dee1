"""Scripts as modules, and a tiny model for them."""

import importlib.util
from pathlib import Path

import pytest

from skdiscovery import ByteMLSTMLanguageModel


@pytest.fixture(scope="session")
def load_script():
    """Return a function that imports an example by its name."""

    def load_script(name):
        path = Path(__file__).parents[2] / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_script


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
