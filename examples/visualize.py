r"""Colour a text by a neuron, or write on from it with the neuron held, and draw that.

    python examples/visualize.py --text "I loved it. Then the ending ruined everything."
    python examples/visualize.py --generate --text "This movie is" --overwrite -1 --n-samples 3
    python examples/visualize.py --language-model mlstm.pt --neuron 1285 --negate

The neuron is that of --neuron, or the one that a classifier picks on the reviews that ship, with
the sign that it gives to it. It takes a minute to read these, once: EXPERIMENT_DIR/cache keeps
their features. What is written is printed; pictures go to
EXPERIMENT_DIR/EXPERIMENT_NAME/heatmaps, a file (or several, of a long text) that is named after how
the text begins, the neuron and its state; another model or scale needs an EXPERIMENT_NAME of its
own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sklearn.pipeline import make_pipeline

from skdiscovery import (
    ByteMLSTMLanguageModel,
    HeatmapDisplay,
    MLSTMFeaturizer,
    SentimentNeuronClassifier,
    TextCorpus,
)
from skdiscovery.datasets import load_reviews
from skdiscovery.plotting.neuron_values import layer_name
from skdiscovery.plotting.saving import safe_stem

FLAGS_OF_SENTIMENT_DISCOVERY = """\
The flags of sentiment-discovery's visualize.py, and what they are here:
    -text -generate             --text --generate
    -neuron -layer              --neuron --layer
    -temperature                --temperature
    -overwrite                  --overwrite, from the first byte written (was: the second), also 0
    -negate                     --negate
    -seq_length                 --seq-length
    -load_model                 --language-model
    -cuda                       --device
    -seed                       --seed
    -experiment_dir             --experiment-dir
    -experiment_name            --experiment-name
    -rnn_type -rnn_size         gone: the model's file has its size
    -layers -embed_size         gone: likewise
    -data_size -weight_norm     gone: likewise
    -lstm_only -dropout         gone: likewise
    -preprocess                 gone: the model's file says how it reads a text
    -model_dir                  gone: --language-model is a path
    -num_gpus -distributed      gone: a text is read on one device
    -rank -world_size           gone: likewise
    -fuse_lstm -fp16            gone: the device decides
    -benchmark                  gone: nothing here is tuned by cuDNN
    -train -valid -test         gone: no data set is read
    -batch_size -persist_state  gone: likewise
    -eval_seq_length            gone: likewise
    -eval_batch_size            gone: likewise
    -data_set_type              gone: likewise
    -loose_json -transpose      gone: likewise
    -shuffle -delim             gone: likewise
    -binarize_sent -split       gone: likewise
    -lazy -cache -no_wrap       gone: likewise
    -text_key -label_key        gone: likewise
    -eval_text_key              gone: likewise
    -eval_label_key             gone: likewise
    -drop_unlabeled             gone: likewise
    -num_shards -val_shards     gone: likewise
    -test_shards -should_test   gone: likewise
    -verbose -config            gone: there is nothing to set
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Draw what the command line describes."""
    parser = make_parser()
    options = parser.parse_args(argv)
    try:
        lm = ByteMLSTMLanguageModel.from_pretrained(options.language_model, device=options.device)
        neuron, sign = options.neuron, 1
        if neuron is None:
            neuron, sign = sentiment_neuron(lm, options)
        if options.negate:
            sign = -sign
        read = write_on if options.generate else read_text
        text_bytes, values = read(lm, neuron, sign, options)
        n_layers = lm.config_["n_layers"]
        name = f"layer-{options.layer % n_layers}_{options.state}_neuron-{neuron}"
        description = f"neuron {neuron}"
        if sign < 0:
            name, description = f"{name}_flipped", f"{description} (sign flipped)"
        description += f", {options.state} state of {layer_name(options.layer, n_layers)}"
        if options.overwrite is not None:
            held = f"{options.overwrite:+g}"
            name += f"_held{held}"
            description += f", {options.overwrite_state} state held at {held} where written"
        display = HeatmapDisplay(
            text_bytes,
            values,
            description=description,
            width=options.width,
            scale=options.scale,
            colorbar=options.colorbar,
        )
        folder = options.experiment_dir / options.experiment_name / "heatmaps"
        folder.mkdir(parents=True, exist_ok=True)
        paths = display.save(folder / f"{safe_stem(text_bytes[0])}_{name}.png")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(*paths, sep="\n")


def sentiment_neuron(lm: ByteMLSTMLanguageModel, options: argparse.Namespace) -> tuple[int, int]:
    """Return the neuron that a classifier picks on the reviews that ship, and its sign."""
    featurizer = MLSTMFeaturizer(
        lm,
        state=options.state,
        layer=options.layer,
        device=options.device,
        memory=options.experiment_dir / "cache",
    )
    classifier = SentimentNeuronClassifier(random_state=0)
    make_pipeline(featurizer, classifier).fit(*load_reviews(return_X_y=True))
    if not classifier.coef_.any():
        raise ValueError("no neuron of this model tells the reviews that ship apart: give --neuron")
    neuron = int(featurizer.feature_neurons_[classifier.neuron_indices_[0]])
    print(f"neuron {neuron}, sign {classifier.neuron_sign_:+d} (a classifier's choice)")
    return neuron, classifier.neuron_sign_


def read_text(
    lm: ByteMLSTMLanguageModel, neuron: int, sign: int, options: argparse.Namespace
) -> tuple[list, list]:
    """Return the text's bytes and the neuron's values, each in a list."""
    if options.overwrite is not None:
        raise ValueError("--overwrite: a neuron is held while text is written; give --generate")
    documents = lm.preprocess([options.text])
    values = lm.activations(
        TextCorpus.from_documents(documents, preprocessor=None),
        neurons=[neuron],
        state=options.state,
        layer=options.layer,
    )
    return documents, [sign * values[0]]


def write_on(
    lm: ByteMLSTMLanguageModel, neuron: int, sign: int, options: argparse.Namespace
) -> tuple[list, list]:
    """Write texts that begin with the given one; return their bytes and the neuron's values."""
    (document,) = lm.preprocess([options.text])
    # A text with a frame is continued before the blank that closes it.
    n_read = len(document) - isinstance(lm.preprocessor, str)
    if options.seq_length <= n_read:
        raise ValueError(
            f"--seq-length: expected more than the {n_read} bytes of --text and what is put before "
            f"it, got {options.seq_length}"
        )
    texts, traces = lm.generate(
        options.text,
        n_bytes=options.seq_length - n_read,
        n_samples=options.n_samples,
        temperature=options.temperature,
        top_k=options.top_k,
        overwrite=None if options.overwrite is None else {neuron: sign * options.overwrite},
        overwrite_state=options.overwrite_state,
        layer=options.layer,
        stop_at_end=options.stop_at_end,
        trace_neurons=[neuron],
        random_state=options.seed,
    )
    for text in texts:
        print("".join(character if character.isprintable() else " " for character in text))
    return (
        [trace.text_bytes for trace in traces],
        [sign * getattr(trace, options.state) for trace in traces],
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        usage="%(prog)s [options]",
        description=__doc__,
        epilog=FLAGS_OF_SENTIMENT_DISCOVERY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    states = ("cell", "hidden")
    add = parser.add_argument_group("what to show").add_argument
    add("--text", default="The meaning of life is ", help='(default: "%(default)s")')
    add("--language-model", default="default", help="name of a shipped model, or a file")
    add("--neuron", type=int, help="default: the one that a classifier picks")
    add("--layer", type=int, default=-1, help="layer of the neuron; -1 is the last (default)")
    add("--state", choices=states, default="cell", help="state to show (default: %(default)s)")
    add("--negate", action="store_true", help="flip the sign of what is shown and of --overwrite")

    add = parser.add_argument_group("writing").add_argument
    add("--generate", action="store_true", help="write on from the text")
    add("--seq-length", type=int, default=256, help="bytes in all, text included (%(default)s)")
    add("--n-samples", type=int, default=1, help="number of texts (%(default)s)")
    add("--temperature", type=float, default=0.4, help="0: always the likeliest byte (%(default)s)")
    add("--top-k", type=int, help="draw among so many of the likeliest bytes (default: all)")
    add("--overwrite", type=float, help="value at which the neuron is held (default: it is not)")
    add("--overwrite-state", choices=states, default="hidden", help="state to hold (%(default)s)")
    add("--stop-at-end", action="store_true", help="stop where the model ends the document")
    add("--seed", type=int, default=0, help="of the draws (%(default)s)")

    add = parser.add_argument_group("pictures").add_argument
    scales = ("fixed", "symmetric", "data")
    add("--scale", choices=scales, default="fixed", help="of the colours; fixed: -1 to 1 (default)")
    add("--colorbar", action="store_true", help="show the colours of the scale")
    add("--width", type=int, default=74, help="characters per row (%(default)s)")
    add("--experiment-dir", type=Path, default=Path("experiments"), help="folder of all runs")
    add("--experiment-name", default="mlstm", help="folder in it (default: %(default)s)")
    add("--device", default="auto", help="a torch device")
    return parser


if __name__ == "__main__":
    main()
