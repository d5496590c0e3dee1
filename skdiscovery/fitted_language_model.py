"""What a fitted language model can do: score texts, show its neurons, write."""

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params
from sklearn.utils.validation import check_is_fitted

from skdiscovery.inference import encoding
from skdiscovery.inference.loading import load_model
from skdiscovery.inference.sampling import Trace, sample
from skdiscovery.nn import Architecture, ByteLanguageModel
from skdiscovery.nn.model import Config
from skdiscovery.nn.weights import Weights
from skdiscovery.text import TextCorpus, encode_documents
from skdiscovery.text.preprocessing import PREFIX, SUFFIX

MAX_HELD = 1e30
"""Largest value that a neuron can be held at: products with it are still finite in float32."""


class FittedLanguageModel:
    """What an estimator with ``weights_`` and ``config_`` can do: read documents, write texts."""

    weights_: Weights
    config_: Config
    preprocessor: Any
    device: str
    precision: str
    backend: str

    def preprocess(self, X: Any) -> list[bytes]:
        """Return the bytes that the model reads for each document.

        It warns if the preprocessor is not the one that the model was trained with.

        Parameters
        ----------
        X : iterable of str or bytes, Series, or TextCorpus
            The documents. Those of a corpus are preprocessed already.

        Returns
        -------
        list of bytes
        """
        check_is_fitted(self)
        trained_with = self.config_["preprocessor"]
        if isinstance(X, TextCorpus):
            preprocessor = X.preprocessor or trained_with
        else:
            preprocessor = self.preprocessor
        if preprocessor != trained_with:
            warnings.warn(
                f"This model was trained on text from preprocessor={trained_with!r}, and reads "
                f"text from preprocessor={preprocessor!r}: to what it has not learnt to read, "
                "its states and its likelihood mean little. Set the preprocessor back.",
                stacklevel=3,
            )
        return list(X) if isinstance(X, TextCorpus) else encode_documents(X, preprocessor)

    def score_samples(self, X: Any) -> np.ndarray:
        """Return the log-likelihood of each document.

        Parameters
        ----------
        X : iterable of str or bytes, Series, or TextCorpus
            The documents.

        Returns
        -------
        ndarray of shape (n_documents,), dtype float64
            Natural logarithm of the probability of a document's bytes after the first, each given
            those before it, from the zero state.
        """
        model, dtype = self._load()
        return encoding.log_likelihoods(model, self.preprocess(X), dtype)

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the bits per byte over all documents: the higher, the better.

        Parameters
        ----------
        X : iterable of str or bytes, Series, or TextCorpus
            The documents.
        y : None
            Ignored.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If no document has a byte after the first.
        """
        model, dtype = self._load()
        return -encoding.nats_per_byte(model, self.preprocess(X), dtype) / math.log(2)

    def activations(
        self,
        X: Any,
        *,
        neurons: Sequence[int] | np.ndarray | None = None,
        state: Literal["cell", "hidden"] = "cell",
        layer: int = -1,
    ) -> list[np.ndarray]:
        """Return the values of neurons after each byte of each document.

        Parameters
        ----------
        X : iterable of str or bytes, Series, or TextCorpus
            The documents.
        neurons : sequence of int, default=None
            Which neurons; None is all of them.
        state : {"cell", "hidden"}, default="cell"
            Which state.
        layer : int, default=-1
            Which layer; -1 is the last.

        Returns
        -------
        list of ndarray of shape (n_bytes, n_neurons), dtype float32
            A row per byte of the preprocessed document: see :meth:`preprocess`. With the
            preprocessor "review" each byte is a character of that text; with others, the value of
            a character is that after its last byte.

        Raises
        ------
        ValueError
            If a neuron or the layer is out of range.
        """
        model, dtype = self._load()
        if state not in ("cell", "hidden"):
            raise ValueError(f"Unknown state {state!r}: expected 'cell' or 'hidden'.")
        return encoding.activations(
            model,
            self.preprocess(X),
            dtype,
            neurons=encoding.check_neurons(neurons, self.config_["hidden_size"]),
            state=state,
            layer=encoding.check_layer(layer, self.config_["n_layers"]),
        )

    @validate_params(
        {
            "prompt": [str, bytes, "array-like"],
            "n_bytes": [Interval(Integral, 0, None, closed="left")],
            "n_samples": [Interval(Integral, 1, None, closed="left")],
            "temperature": [Interval(Real, 0, np.finfo(float).max, closed="both")],
            "top_k": [Interval(Integral, 1, 256, closed="both"), None],
            "overwrite": [Mapping, None],
            "overwrite_state": [StrOptions({"hidden", "cell"})],
            "random_state": ["random_state"],
            "layer": [Integral],
            "stop_at_end": ["boolean"],
            "trace_neurons": ["array-like", None],
        },
        prefer_skip_nested_validation=True,
    )
    def generate(
        self,
        prompt: str | bytes | Sequence[str | bytes] = "",
        *,
        n_bytes: int = 200,
        n_samples: int = 1,
        temperature: float = 1.0,
        top_k: int | None = None,
        overwrite: Mapping[int, float] | None = None,
        overwrite_state: Literal["hidden", "cell"] = "hidden",
        random_state: Any = None,
        layer: int = -1,
        stop_at_end: bool = False,
        trace_neurons: Sequence[int] | np.ndarray | None = None,
    ) -> list[str] | tuple[list[str], list[Trace]]:
        r"""Generate texts that continue a prompt, or each of several.

        Parameters
        ----------
        prompt : str or bytes, or sequence of these, default=""
            How the texts begin.
        n_bytes : int, default=200
            Number of bytes to generate after the prompt.
        n_samples : int, default=1
            Number of texts for each prompt.
        temperature : float, default=1.0
            Divides the logits: below 1 the likelier bytes gain; at 0 the likeliest is taken.
        top_k : int, default=None
            Draw among the ``top_k`` likeliest bytes only.
        overwrite : dict of int to float, default=None
            Maps neurons to the value that each is held at (clamped to), from the first byte
            generated.
        overwrite_state : {"hidden", "cell"}, default="hidden"
            Which state of these neurons is held.
        random_state : int, RandomState instance or None, default=None
            Seeds the draws.
        layer : int, default=-1
            Which layer the neurons of ``overwrite`` and ``trace_neurons`` are in; -1 is the last.
        stop_at_end : bool, default=False
            Whether to end a text, before ``n_bytes``, where the model ends the document: where it
            writes the newline that all preprocessors with a name put before a document.
        trace_neurons : sequence of int, default=None
            Neurons whose values are to be returned, too.

        Returns
        -------
        texts : list of str
            Those of the first prompt, then those of the next. Each begins with the prompt as
            preprocessed, without its frame: "review" leaves no blanks at its ends. Bytes that are
            not UTF-8 become the replacement character.
        traces : list of Trace
            Only with ``trace_neurons``: for each text a tuple of ``text_bytes``, its bytes with the
            frame, and ``hidden`` and ``cell``, what the neurons hold after each of them: arrays of
            shape (n_bytes, n_neurons), dtype float32. ``HeatmapDisplay.from_activations`` draws
            them.

        Raises
        ------
        ValueError
            If a neuron or the layer is out of range, a temperature or held value is not a finite
            number, or ``stop_at_end`` is asked of a model whose preprocessor has no name.

        Examples
        --------
        >>> from skdiscovery import ByteMLSTMLanguageModel
        >>> lm = ByteMLSTMLanguageModel.from_pretrained("default", device="cpu")
        >>> texts, traces = lm.generate(
        ...     ["It was", "I am"], n_bytes=20, overwrite={423: 0.9}, trace_neurons=[423]
        ... )
        >>> texts[1][:4], traces[1].text_bytes[:6], traces[1].hidden.shape
        ('I am', b'\n I am', (26, 1))
        >>> traces[1].hidden[-6:, 0].round(3)  # held from the byte before the first one written
        array([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], dtype=float32)
        """
        model, dtype = self._load()
        framed = isinstance(self.preprocessor, str)
        if stop_at_end and not framed:
            raise ValueError(
                "stop_at_end needs a model that has learnt where documents end, from a "
                "preprocessor that frames them, as 'review' does. Got "
                f"preprocessor={self.preprocessor!r}."
            )
        n_neurons = self.config_["hidden_size"]
        traced = np.arange(0)
        if trace_neurons is not None:
            traced = encoding.check_neurons(trace_neurons, n_neurons)
        prompts = [prompt] if isinstance(prompt, str | bytes) else prompt
        documents = self.preprocess(prompts)
        seed = int(check_random_state(random_state).randint(2**31))
        primers = [
            (document.removesuffix(SUFFIX.encode()) if framed else document) or b"\n"
            for document in documents
        ]
        traces = sample(
            model,
            primers,
            dtype,
            n_bytes=n_bytes,
            n_samples=n_samples,
            temperature=temperature,
            top_k=top_k,
            overwrite=_checked_overwrite(overwrite or {}, n_neurons),
            overwrite_state=overwrite_state,
            layer=encoding.check_layer(layer, self.config_["n_layers"]),
            traced=traced,
            end=ord(PREFIX[0]) if stop_at_end else None,
            generator=torch.Generator().manual_seed(seed),
        )
        texts = []
        for i, trace in enumerate(traces):
            # What primed an empty document is not the user's.
            text_bytes = trace.text_bytes if documents[i // n_samples] else trace.text_bytes[1:]
            text = text_bytes.decode("utf-8", errors="replace")
            if framed:
                text = text.removeprefix(PREFIX)
            has_ended = len(trace.text_bytes) < len(primers[i // n_samples]) + n_bytes
            texts.append(text.removesuffix(SUFFIX) if has_ended else text)
        return texts if trace_neurons is None else (texts, traces)

    def _load(self) -> tuple[ByteLanguageModel, torch.dtype]:
        check_is_fitted(self)
        return load_model(
            self.weights_,
            Architecture.from_config(self.config_),
            self.device,
            self.precision,
            self.backend,
        )


def _checked_overwrite(overwrite: Mapping[int, float], n_neurons: int) -> dict[int, float]:
    """Return the numbers of neurons, and the values they are to be held at."""
    neurons = encoding.check_neurons(list(overwrite), n_neurons) if overwrite else np.arange(0)
    try:
        values = np.array(list(overwrite.values()), dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.ndim != 1 or not (np.abs(values) <= MAX_HELD).all():
        raise ValueError(
            "overwrite must map neurons to finite numbers, those they are to be held at, from "
            f"{-MAX_HELD:g} to {MAX_HELD:g}. Got {overwrite!r}."
        )
    return dict(zip(neurons.tolist(), values.tolist(), strict=True))
