"""Convert a model of another system to one file of skdiscovery, or to OpenAI's files.

    python -m skdiscovery.pretrained.convert SOURCE TARGET
    python -m skdiscovery.pretrained.convert SOURCE FOLDER --to openai

SOURCE is what ByteMLSTMLanguageModel.from_pretrained takes: the name of a model that ships, a file
of save_pretrained, OpenAI's folder of 0.npy to 14.npy, a .pt file of a language model of NVIDIA's
sentiment-discovery (mLSTM or LSTM over bytes; after version 0, of one layer; no classifier, as
finetune_classifier.py's, and no optimizer), or a folder of .npy files or a .pt file of state dicts
of pytorch-sentiment-neuron.

It prints what it found, and how many bits the model takes for a byte of plain English: less than
2.5 for one that was trained, 7 and more for one that was not, or was misread. Nothing in a SOURCE
is run.
"""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

from skdiscovery.inference.encoding import nats_per_byte
from skdiscovery.nn import Architecture
from skdiscovery.nn.weights import model_from_weights
from skdiscovery.pretrained.format import StoredDtype, write_model
from skdiscovery.pretrained.imported import ImportedModel
from skdiscovery.pretrained.importers import import_model
from skdiscovery.pretrained.layouts import Gates
from skdiscovery.pretrained.npy_folders import export_openai
from skdiscovery.pretrained.shipped import find_model
from skdiscovery.text import get_preprocessor

ENGLISH = (
    "I did not expect much of this one, but my wife wanted to see it, and we both liked it a lot. "
    "The story is simple, the actors are very good, and the music is great. I would buy it again."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.to == "openai" and options.dtype != "float32":
        parser.error(f"--dtype {options.dtype}: OpenAI's files are float32")
    try:
        model = import_model(find_model(options.source), gates=options.gates)
        print(describe(model), flush=True)
        if options.to == "openai":
            export_openai(options.target, model.weights, model.config)
        else:
            write_model(options.target, model.weights, model.config, options.dtype)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"written: {options.target} ({_size(Path(options.target)) / 1e6:.1f} MB)")
    preprocessor = model.config["preprocessor"]
    if options.to == "openai" and preprocessor != "openai":
        print(f"note: the files do not say that the model's preprocessor is {preprocessor!r}")


def describe(model: ImportedModel) -> str:
    """Return what a model is, and how well it predicts plain English."""
    config = model.config
    n_weights = sum(array.size for array in model.weights.values())
    module = model_from_weights(model.weights, Architecture.from_config(config))
    document = get_preprocessor(config["preprocessor"])(ENGLISH)
    bits = nats_per_byte(module, [document], torch.float32) / math.log(2)
    return (
        f"found: {model.system}\n"
        f"  {config['cell']}, {config['n_layers']} layer(s) of {config['hidden_size']} neurons, "
        f"embedding of {config['embedding_size']}, {n_weights:,} weights\n"
        f"  preprocessor {config['preprocessor']!r}\n"
        f"  plain English: {bits:.2f} bits per byte"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skdiscovery.pretrained.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SOURCE", help="the model to read")
    parser.add_argument("target", metavar="TARGET", help="the file, or with --to openai the folder")
    parser.add_argument(
        "--to",
        choices=["skdiscovery", "openai"],
        default="skdiscovery",
        help="what to write: one .safetensors file, or OpenAI's 15 .npy files (an mLSTM of one "
        "layer) in a new folder; default: skdiscovery",
    )
    parser.add_argument(
        "--dtype",
        choices=get_args(StoredDtype),
        default="float32",
        help="how a .safetensors file keeps the weights; float16 halves it, int8 quarters it; "
        "default: float32",
    )
    parser.add_argument(
        "--gates",
        choices=get_args(Gates),
        help="order of the gates in a .pt file, where it is not its system's: ifou for mLSTMs of "
        "sentiment-discovery v0.2, before April 2018, which look like later ones",
    )
    return parser


def _size(path: Path) -> int:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(os.path.getsize(file) for file in files)


if __name__ == "__main__":
    main()
