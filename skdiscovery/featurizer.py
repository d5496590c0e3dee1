"""Texts to vectors: the states of a trained language model, pooled."""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from hashlib import sha256
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, check_memory

from skdiscovery.inference import encoding
from skdiscovery.inference.cache import FeatureCache
from skdiscovery.inference.loading import load_model
from skdiscovery.inference.pooling import POOLINGS
from skdiscovery.inference.sampled_loss import SampledLoss
from skdiscovery.language_model import ByteMLSTMLanguageModel
from skdiscovery.nn import Architecture
from skdiscovery.nn.weights import weights_hash
from skdiscovery.ops.runtime import BACKENDS, PRECISIONS, resolve_device, resolve_precision
from skdiscovery.pretrained.frozen import read_frozen

# Texts that take so many bits per byte more than those that the model was validated on look unlike
# them: each byte is half as likely. Reviews of other things and sentences of reviews take up to
# 0.3 more, news and legal prose 0.8 to 1.0, capitals 1.5, program code 2, other languages 3.
_UNFAMILIAR = 1.0
# Of less text nothing is said: the first bytes of a text are the hardest to predict, and a call for
# a text or two is to take no longer.
_FEW_BYTES, _FEW_PREDICTIONS = 2000, 500

_NOT_FITTED = (
    "This %(name)s is not fitted. A search clones the models of its grid, unfitted: give it files, "
    "or each model as sklearn.frozen.FrozenEstimator(model)."
)

_VECTORS_VERSION = 2  # one more wherever the same text, weights and settings give other vectors
_warned: set[bytes] = set()  # fingerprints: who searches a grid wants to be told once


class MLSTMFeaturizer(TransformerMixin, BaseEstimator):
    r"""Turn each text into the state of a trained language model that has read it.

    A text's vector is the same whatever texts are with it, in whatever order and batches.

    Parameters
    ----------
    language_model : str, path-like, ByteMLSTMLanguageModel or FrozenEstimator, default="default"
        Name of a model that ships with the package or lies in the folder of the data, a file or
        folder that :meth:`~skdiscovery.ByteMLSTMLanguageModel.from_pretrained` reads, or a fitted
        model. It is frozen: clones of the featurizer share it and never train it. If you train it
        further, refit everything that was fitted on its features. In the grid of a search, wrap
        it in a :class:`~sklearn.frozen.FrozenEstimator`, or scikit-learn clones it unfitted.
    state : {"cell", "hidden"}, default="cell"
        Which state of the model. The cell state is Radford et al.'s [1]_.
    layer : int, default=-1
        Which layer; -1 is the last.
    pooling : {"auto", "last", "mean", "max"} or tuple of the last three, default="auto"
        "last" is the state after the last byte; "mean" and "max" are taken over the states after
        all bytes; a tuple concatenates several. "auto" is what the model's file recommends, or
        "last" where it says nothing.
    neurons : sequence of int, default=None
        Which neurons; None is all of them.
    batch_bytes : int or "auto", default="auto"
        Bytes of text in a batch, about: larger is faster and takes more memory.
    device : str or torch.device, default="auto"
        Where to compute: a torch device, or "auto" for a GPU if there is one.
    precision : {"auto", "float64", "float32", "bfloat16", "int8"}, default="auto"
        Precision of the recurrent products; "auto" is bfloat16 on a GPU, else float32. "int8", on
        the CPU only, is the fastest there, most of all if the processor has AVX-512 VNNI; its
        features correlate with float32's at 0.999 or better. How it rounds is up to the processor.
    backend : {"auto", "torch", "cpp", "cuda"}, default="auto"
        What runs the recurrent layers: plain torch, or kernels compiled for the CPU or for CUDA,
        which are built on first use. Naming a backend that is not available is an error; "auto" is
        the one that the environment variable ``SKDISCOVERY_BACKEND`` names, or else the fastest
        that is available.
    memory : str, path-like or joblib.Memory, default=None
        A folder that caches the vector of every text seen, by its bytes, the model's weights,
        ``state``, ``layer``, ``pooling``, ``neurons`` and ``precision``. Unlike
        ``Pipeline(memory=...)`` it serves ``transform`` and ``predict`` too. Vectors are stored
        batch by batch, so a call that was killed continues from there when it is made again.
    memory_bytes : int, default=None
        Maximum size, on disk, of what ``memory`` caches: beyond it the oldest vectors are deleted.
        None sets no limit.
    verbose : int, default=0
        Whether to show progress.

    Attributes
    ----------
    language_model_ : ByteMLSTMLanguageModel
        The fitted model that reads the texts.
    pooling_ : tuple of str
        The poolings, in the order of their columns.
    feature_neurons_ : ndarray of shape (n_features,), dtype int64
        The neuron that each column is about.

    See Also
    --------
    SentimentNeuronClassifier : Finds the neurons among the columns that track a label.

    Notes
    -----
    As with all that computes with torch: once it has done so on several threads of a CPU, a fork
    of the process hangs where it computes. Start workers by "spawn" or joblib's "loky".

    References
    ----------
    .. [1] Radford, Jozefowicz, Sutskever, "Learning to Generate Reviews and Discovering
       Sentiment", arXiv:1704.01444, 2017.

    Examples
    --------
    >>> from skdiscovery import MLSTMFeaturizer
    >>> featurizer = MLSTMFeaturizer(pooling=("last", "mean"), neurons=[2, 5])
    >>> featurizer.fit_transform(["I loved it.", "I did not."]).shape
    (2, 4)
    >>> list(featurizer.get_feature_names_out())
    ['last_cell_2', 'last_cell_5', 'mean_cell_2', 'mean_cell_5']
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "language_model": [str, os.PathLike, ByteMLSTMLanguageModel, FrozenEstimator],
        "state": [StrOptions({"cell", "hidden"})],
        "layer": [Integral],
        "pooling": [StrOptions({"auto", *POOLINGS}), tuple, list],
        "neurons": ["array-like", None],
        "batch_bytes": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "precision": [StrOptions(set(PRECISIONS))],
        "backend": [StrOptions(set(BACKENDS))],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "memory_bytes": [Interval(Integral, 1, None, closed="left"), None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        language_model: str | os.PathLike | ByteMLSTMLanguageModel | FrozenEstimator = "default",
        *,
        state: Literal["cell", "hidden"] = "cell",
        layer: int = -1,
        pooling: str | tuple[str, ...] = "auto",
        neurons: Sequence[int] | np.ndarray | None = None,
        batch_bytes: int | Literal["auto"] = "auto",
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        memory: Any = None,
        memory_bytes: int | None = None,
        verbose: int = 0,
    ):
        self.language_model = language_model
        self.state = state
        self.layer = layer
        self.pooling = pooling
        self.neurons = neurons
        self.batch_bytes = batch_bytes
        self.device = device
        self.precision = precision
        self.backend = backend
        self.memory = memory
        self.memory_bytes = memory_bytes
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Load the language model and check the parameters against it; no text is read.

        Parameters
        ----------
        X, y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is no such model, or it lacks a neuron or the layer.
        TypeError
            If ``language_model`` is frozen, and not a language model.
        NotFittedError
            If ``language_model`` is an estimator that is not fitted.
        """
        model = self.language_model
        if isinstance(model, FrozenEstimator):
            model = model.estimator
            if not isinstance(model, ByteMLSTMLanguageModel):
                raise TypeError(
                    f"Expected a frozen ByteMLSTMLanguageModel, got a frozen {model!r}."
                )
        elif not isinstance(model, ByteMLSTMLanguageModel):
            resolve_device(self.device)
            model = ByteMLSTMLanguageModel._from_imported(read_frozen(model), self.device)
        check_is_fitted(model, msg=_NOT_FITTED)
        encoding.check_layer(self.layer, model.config_["n_layers"])
        neurons = encoding.check_neurons(self.neurons, model.config_["hidden_size"])
        if len(set(neurons.tolist())) < len(neurons):
            raise ValueError(f"Expected each neuron once, got neurons={self.neurons!r}.")
        self.language_model_ = model
        self.pooling_ = self._poolings(model.config_.get("pooling", "last"))
        self.feature_neurons_ = np.tile(neurons, len(self.pooling_))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the vector of each text.

        Parameters
        ----------
        X : iterable of str or bytes, Series, DataFrame of one column, or TextCorpus
            The texts.

        Returns
        -------
        ndarray of shape (n_texts, n_features), dtype float32
            float64 where ``precision`` is "float64".

        Raises
        ------
        ValueError, TypeError
            If ``X`` is a single string, or a text is missing or not a text (its index is named).

        Warns
        -----
        UserWarning
            If the texts look unlike what the model was trained on: if, on a sample of them, it
            takes at least one bit per byte more than its file records for held-out text. Issued
            once for a model, and for no less than 2,000 bytes of text that is not cached.
        """
        check_is_fitted(self)
        documents = self.language_model_.preprocess(X)
        unique = list(dict.fromkeys(documents))
        vectors = self._vectors(unique)
        position = {document: row for row, document in enumerate(unique)}
        return vectors[[position[document] for document in documents]]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns: pooling, state and neuron, as "mean_cell_388".

        Parameters
        ----------
        input_features : None
            Ignored.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        names = [f"{p}_{self.state}_{neuron}" for p in self.pooling_ for neuron in self._neurons()]
        return np.array(names, dtype=object)

    def _poolings(self, recommended: str | Sequence[str]) -> tuple[str, ...]:
        pooling = recommended if self.pooling == "auto" else self.pooling
        poolings = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        if not poolings or not all(name in POOLINGS for name in poolings):
            raise ValueError(
                f"Unknown pooling {self.pooling!r}: expected 'auto', one of {list(POOLINGS)}, or "
                "a tuple of these."
            )
        if len(set(poolings)) < len(poolings):
            raise ValueError(f"Expected each pooling once, got {self.pooling!r}.")
        return poolings

    def _neurons(self) -> np.ndarray:
        """Return the neurons that are pooled, each once."""
        return np.split(self.feature_neurons_, len(self.pooling_))[0]

    def _vectors(self, documents: list[bytes]) -> np.ndarray:
        """Return the vectors of different documents, from the cache where it has them."""
        folder = self._cache_folder()
        if folder is None:
            return self._encode(documents)
        dtype = np.float64 if self.precision == "float64" else np.float32
        cache = FeatureCache(folder, self._fingerprint(), dtype, self.memory_bytes)
        vectors = np.empty((len(documents), len(self.feature_neurons_)), dtype=dtype)
        found = cache.get(documents)
        for row, vector in found.items():
            vectors[row] = vector
        missing = [row for row in range(len(documents)) if row not in found]
        if missing:
            new = [documents[row] for row in missing]
            vectors[missing] = self._encode(
                new, keep=lambda batch, rows: cache.put([new[k] for k in batch], rows)
            )
        return vectors

    def _encode(
        self,
        documents: list[bytes],
        keep: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> np.ndarray:
        model = self.language_model_
        module, dtype = load_model(
            model.weights_,
            Architecture.from_config(model.config_),
            self.device,
            self.precision,
            self.backend,
        )
        n_bytes = sum(map(len, documents))
        has_own_loss = "bits_per_byte" in model.config_
        loss = SampledLoss(n_bytes) if has_own_loss and n_bytes >= _FEW_BYTES else None
        vectors = encoding.features(
            module,
            documents,
            dtype,
            poolings=self.pooling_,
            neurons=self._neurons(),
            state=self.state,
            layer=encoding.check_layer(self.layer, model.config_["n_layers"]),
            batch_bytes=None if self.batch_bytes == "auto" else int(self.batch_bytes),
            loss=loss,
            keep=keep,
            verbose=self.verbose,
        )
        if loss is not None:
            self._warn_if_unfamiliar(loss)
        return vectors

    def _warn_if_unfamiliar(self, loss: SampledLoss) -> None:
        """Warn, once for a model, if it predicts the texts far worse than those it is for."""
        if loss.n_predicted < _FEW_PREDICTIONS:
            return
        bits, own = loss.bits_per_byte(), self.language_model_.config_["bits_per_byte"]
        if bits < own + _UNFAMILIAR or (fingerprint := self._fingerprint()) in _warned:
            return
        _warned.add(fingerprint)
        warnings.warn(
            f"The texts look unlike what the language model was trained on: it takes {bits:.2f} "
            f"bits per byte for them (on a sample of {loss.n_predicted:,} bytes), and {own:.2f} "
            "for held-out text of its own kind. Its features may say little about them: look at "
            "their language, encoding, markup and case, or use a model that was trained on such "
            "texts.",
            stacklevel=6,
        )

    def _cache_folder(self) -> Path | None:
        location = check_memory(
            os.fspath(self.memory) if isinstance(self.memory, os.PathLike) else self.memory
        ).location
        return None if location is None else Path(location) / "skdiscovery"

    def _fingerprint(self) -> bytes:
        """Return a hash of all that a vector depends on besides its text."""
        dtype = resolve_precision(self.precision, resolve_device(self.device))
        layer = encoding.check_layer(self.layer, self.language_model_.config_["n_layers"])
        settings = [_VECTORS_VERSION, self.state, layer, str(dtype), self.pooling_]
        digest = sha256(json.dumps(settings).encode())
        digest.update(self.feature_neurons_.tobytes())
        digest.update(weights_hash(self.language_model_.weights_))
        return digest.digest()

    def __sklearn_clone__(self) -> Self:
        """Share the language model with the clone: cloning it would lose what it has learnt."""
        clone = super().__sklearn_clone__()
        clone.language_model = self.language_model
        return clone

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; those of the frozen language model are not among them.

        Parameters
        ----------
        deep : bool, default=True
            Ignored.

        Returns
        -------
        dict
        """
        return super().get_params(deep=False)

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the featurizer; those of its frozen language model stay.

        Parameters
        ----------
        **params
            The parameters.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If one is not a parameter of the featurizer.
        """
        if any(name.startswith("language_model__") for name in params):
            raise ValueError(
                f"The language model of a featurizer is frozen, but got {sorted(params)}: set "
                "parameters of the model before it is fitted."
            )
        return super().set_params(**params)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = True
        return tags
