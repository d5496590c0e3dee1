"""The byte language model as a scikit-learn estimator."""

import copy
import os
import warnings
from dataclasses import asdict, replace
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import pandas as pd
import torch
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skdiscovery.fitted_language_model import FittedLanguageModel
from skdiscovery.inference import encoding
from skdiscovery.nn import Architecture
from skdiscovery.nn.model import Config, make_config
from skdiscovery.nn.weights import (
    Weights,
    folded_weights,
    is_locked,
    lock,
    model_from_weights,
    weights_hash,
)
from skdiscovery.ops.runtime import BACKENDS, PRECISIONS, resolve_device, resolve_precision
from skdiscovery.pretrained.format import StoredDtype, write_model
from skdiscovery.pretrained.imported import ImportedModel
from skdiscovery.pretrained.importers import import_model
from skdiscovery.pretrained.shipped import find_model
from skdiscovery.text import TextCorpus
from skdiscovery.text.preprocessing import PREPROCESSORS
from skdiscovery.training import OptimizationOptions, Trainer, TrainingPlan, train
from skdiscovery.training.checkpoint import CheckpointFolder, Snapshot
from skdiscovery.training.distribution import Group, complete, join_launched
from skdiscovery.training.history import HISTORY_COLUMNS, VALIDATION_HISTORY_COLUMNS, Row
from skdiscovery.training.setup import hold_out, open_checkpoints

_HISTORIES = {"history_", "validation_history_"}
_POSITIVE_INT = Interval(Integral, 1, None, closed="left")


class ByteMLSTMLanguageModel(FittedLanguageModel, DensityMixin, BaseEstimator):
    r"""Byte-level language model: a multiplicative LSTM that predicts the next byte of a text.

    Trained on reviews, some of its neurons come to track sentiment, with no label seen [1]_ [2]_.
    :class:`~skdiscovery.MLSTMFeaturizer` turns texts into the states of those neurons.

    Parameters
    ----------
    hidden_size : int, default=1024
        Number of neurons in each layer.
    embedding_size : int, default=64
        Dimension of the embedding of a byte.
    n_layers : int, default=1
        Number of recurrent layers. A layer reads the sum of the outputs below it.
    cell : {"mlstm", "lstm"}, default="mlstm"
        Kind of recurrent layer: multiplicative LSTM [3]_ or LSTM.
    dropout : float, default=0.0
        Probability of dropout, applied to each layer's output.
    weight_norm : bool or "all", default=True
        Train the layers' matrices as magnitude times direction, row by row [4]_; with "all" the
        head's too.
    preprocessor : {"review", "openai", "nvidia"}, callable or None, default="review"
        How a text becomes bytes. None takes the UTF-8 bytes of a text as they are.
    persist_state : {"document", "shard", "always"}, default="shard"
        How long the recurrent state is carried over in training. The corpus is cut into shards of
        a megabyte. In each epoch the shards, and the documents within each, are shuffled, and the
        result is divided into ``batch_size`` contiguous streams ("lanes"). "document" resets the
        state at the start of each document, "shard" at the start of each shard, and "always"
        never. Except with "always", it is also reset where a lane begins.
    batch_size : int, default=128
        Global batch size: the number of lanes that are trained in parallel, on all devices
        together. If memory is short, gradients are accumulated over parts of the batch, with the
        same result except for the masks of dropout.
    seq_length : int, default=256
        Length, in bytes, of truncated backpropagation through time. A negative number ``-k`` cuts
        the corpus into ``k`` sequences.
    max_epochs : int, default=1
        Number of passes over the corpus.
    max_steps : int, default=None
        Maximum number of updates. Training ends when this or ``max_epochs`` is reached.
    optimizer : str, default="adam"
        Name of an optimizer class of :mod:`torch.optim`, case-insensitive.
    learning_rate : float, default=5e-4
        Learning rate of the first step. The default is that of [1]_, for 4,096 neurons and a
        million steps; with weight norm, Adam and thousands of steps, 5e-3 learns far more.
    schedule : {"linear", "exponential", "constant"}, default="linear"
        Schedule of the learning rate: linear decay to 0 at the last step, multiplication by
        ``lr_decay`` after each epoch, or constant.
    lr_decay : float, default=0.95
        Factor of the exponential schedule.
    grad_clip : float, default=1.0
        Maximum norm of the gradient over all parameters; None disables clipping.
    validation_fraction : float, default=0.0
        Fraction of the documents that is held out to measure the validation loss.
    device : str or torch.device, default="auto"
        Where to compute: a torch device, or "auto" for a GPU if there is one.
    n_devices : int or "all", default=1
        Number of devices to train on: GPUs, or processes that share the CPU's threads. The lanes
        are split among them and gradients are summed, so that the update is that of a single
        device, except for the masks of dropout. Ignored under ``torchrun``, on one machine or
        many: each of its processes is one device.
    precision : {"auto", "float64", "float32", "bfloat16"}, default="auto"
        Precision of the recurrent products; "auto" is bfloat16 on a GPU, else float32. In
        bfloat16, weights, cell state and loss stay in float32. On a CPU with AVX512-BF16,
        compiled kernels train up to twice as fast in bfloat16 (AMD), or a third slower (Intel
        without AMX).
    backend : {"auto", "torch", "cpp", "cuda"}, default="auto"
        What runs the recurrent layers: plain torch, or kernels compiled for the CPU or for CUDA,
        which are built on first use. Naming a backend that is not available is an error; "auto" is
        the one that the environment variable ``SKDISCOVERY_BACKEND`` names, or else the fastest
        that is available.
    checkpoint_dir : path-like, default=None
        Folder for checkpoints: the last three, and in ``best.safetensors`` the best on validation,
        which :meth:`from_pretrained` reads. None writes none.
    checkpoint_every : int, default=5000
        Number of steps from one validation and checkpoint to the next.
    resume : bool, default=False
        Whether ``fit`` continues from the last checkpoint in ``checkpoint_dir``, if there is one.
        On a CPU the weights are then those of an uninterrupted run, bit for bit. ``max_epochs``,
        ``max_steps``, ``learning_rate``, ``dropout`` and ``checkpoint_every`` may have changed,
        for example to extend a finished run: from that step on the schedule is that of the new
        ones. So may the device, the number of devices and the backend.
    warm_start : bool, default=False
        Whether ``fit`` starts from the weights of the previous fit: a new run, which ``resume``
        continues where those weights are given again.
    random_state : int, RandomState instance or None, default=None
        Seeds the weights, the order of the documents, dropout and the held-out share.
    verbose : int, default=0
        Whether to show progress: bytes per second, bits per byte, time left.

    Attributes
    ----------
    weights_ : dict of ndarray, dtype float32
        ``embedding`` (256, E); for layer K ``layers.K.wx`` (4H, in), ``layers.K.wh`` (4H, H),
        ``layers.K.wmx`` (H, in), ``layers.K.wmh`` (H, H), ``layers.K.bias`` (4H,), gates in the
        order i, f, o, u; ``head.weight`` (256, H); ``head.bias`` (256,). Weight norm is folded in.
    config_ : dict
        Architecture, preprocessor, steps and bytes read, and where they are known the bits per
        byte on validation and the recommended pooling: all that a file needs besides the weights.
    history_ : DataFrame
        A row per 10 steps, and at each checkpoint: step, epoch, bytes, loss (nats per byte),
        bits_per_byte, learning_rate, grad_norm (before clipping), bytes_per_second (of all devices
        together).
    validation_history_ : DataFrame
        A row per validation: step, epoch, bytes, loss, bits_per_byte.
    n_steps_ : int
        Number of updates made.
    n_bytes_seen_ : int
        Number of bytes predicted in training.

    Notes
    -----
    A new model's recurrent matrices are orthogonal, as those of [1]_; the bias of its forget gates
    is 1, not 0 as there, so that the state lasts from the first step on.

    See Also
    --------
    MLSTMFeaturizer : Vectors for texts from a trained model.

    References
    ----------
    .. [1] Radford, Jozefowicz, Sutskever, "Learning to Generate Reviews and Discovering
       Sentiment", arXiv:1704.01444, 2017.
    .. [2] Puri et al., "Large Scale Language Modeling: Converging on 40GB of Text in Four Hours",
       arXiv:1808.01371, 2018.
    .. [3] Krause et al., "Multiplicative LSTM for sequence modelling", arXiv:1609.07959, 2016.
    .. [4] Salimans, Kingma, "Weight Normalization", arXiv:1602.07868, 2016.

    Examples
    --------
    >>> from skdiscovery import ByteMLSTMLanguageModel
    >>> texts = ["What a lovely film!", "What a dull film."] * 40
    >>> lm = ByteMLSTMLanguageModel(
    ...     hidden_size=32, batch_size=8, seq_length=32, max_epochs=4, learning_rate=0.01,
    ...     random_state=0,
    ... ).fit(texts)
    >>> bool(lm.score(texts) > -8)  # better than 8 bits per byte, which takes no model at all
    True
    >>> lm.activations(["film"], neurons=[3])[0].shape  # "\n film " has 7 bytes
    (7, 1)
    """

    _parameter_constraints: dict = {  # noqa: RUF012
        "hidden_size": [_POSITIVE_INT],
        "embedding_size": [_POSITIVE_INT],
        "n_layers": [_POSITIVE_INT],
        "cell": [StrOptions({"mlstm", "lstm"})],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_norm": ["boolean", StrOptions({"all"})],
        "preprocessor": [StrOptions(set(PREPROCESSORS)), callable, None],
        "persist_state": [StrOptions({"document", "shard", "always"})],
        "batch_size": [_POSITIVE_INT],
        "seq_length": [_POSITIVE_INT, Interval(Integral, None, -1, closed="right")],
        "max_epochs": [_POSITIVE_INT],
        "max_steps": [_POSITIVE_INT, None],
        "optimizer": [str],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [StrOptions({"linear", "exponential", "constant"})],
        "lr_decay": [Interval(Real, 0, 1, closed="right")],
        "grad_clip": [Interval(Real, 0, None, closed="neither"), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "device": [str, torch.device],
        "n_devices": [_POSITIVE_INT, StrOptions({"all"})],
        "precision": [StrOptions(set(PRECISIONS) - {"int8"})],  # which is for reading alone
        "backend": [StrOptions(set(BACKENDS))],
        "checkpoint_dir": [str, os.PathLike, None],
        "checkpoint_every": [_POSITIVE_INT],
        "resume": ["boolean"],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        hidden_size: int = 1024,
        *,
        embedding_size: int = 64,
        n_layers: int = 1,
        cell: Literal["mlstm", "lstm"] = "mlstm",
        dropout: float = 0.0,
        weight_norm: bool | Literal["all"] = True,
        preprocessor: Any = "review",
        persist_state: Literal["document", "shard", "always"] = "shard",
        batch_size: int = 128,
        seq_length: int = 256,
        max_epochs: int = 1,
        max_steps: int | None = None,
        optimizer: str = "adam",
        learning_rate: float = 5e-4,
        schedule: Literal["linear", "exponential", "constant"] = "linear",
        lr_decay: float = 0.95,
        grad_clip: float | None = 1.0,
        validation_fraction: float = 0.0,
        device: str = "auto",
        n_devices: int | Literal["all"] = 1,
        precision: str = "auto",
        backend: str = "auto",
        checkpoint_dir: str | os.PathLike | None = None,
        checkpoint_every: int = 5000,
        resume: bool = False,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int = 0,
    ):
        self.hidden_size = hidden_size
        self.embedding_size = embedding_size
        self.n_layers = n_layers
        self.cell = cell
        self.dropout = dropout
        self.weight_norm = weight_norm
        self.preprocessor = preprocessor
        self.persist_state = persist_state
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.max_epochs = max_epochs
        self.max_steps = max_steps
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.lr_decay = lr_decay
        self.grad_clip = grad_clip
        self.validation_fraction = validation_fraction
        self.device = device
        self.n_devices = n_devices
        self.precision = precision
        self.backend = backend
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.resume = resume
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)  # nor without gradients, as a caller may be
    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Train on documents.

        Ctrl-C ends training after the step under way, with a checkpoint if there is a folder for
        them, and a fitted, usable model; a second Ctrl-C does so at once, without the checkpoint.

        Parameters
        ----------
        X : iterable of str or bytes, Series, or TextCorpus
            The documents. A corpus is taken as it is, already preprocessed.
        y : None
            Ignored.
        X_val : iterable of str or bytes, Series, or TextCorpus, default=None
            Documents on which the loss is measured while training, instead of
            ``validation_fraction``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the corpus is empty or too short, a document is missing, the device or backend is
            not available, ``checkpoint_dir`` has checkpoints of another run or, with ``resume``, is
            not given, or the loss is no longer finite: the model is then fitted with the last good
            weights.
        TypeError
            If a document is neither ``str`` nor ``bytes``.
        MemoryError
            If not even one lane of a batch fits into memory.
        RuntimeError
            If another of several devices fails; the message has its error.
        """
        corpus = self._corpus(X)
        group, device = join_launched(resolve_device(self.device))
        seed = int(check_random_state(self.random_state).randint(2**31))
        goes_on = self.warm_start and hasattr(self, "weights_")
        checkpoints = snapshot = None
        if group.is_first:
            checkpoints, snapshot, seed = open_checkpoints(
                self.checkpoint_dir,
                self.resume,
                self.get_params(),
                corpus,
                (self.weights_, self.config_) if goes_on else None,
                seed,
            )
        seed = group.from_first(seed)
        if X_val is None:
            training, validation = hold_out(corpus, self.validation_fraction, seed)
        else:
            training, validation = corpus, list(self._corpus(X_val))
        trainer = self._make_trainer(seed, device, goes_on)
        self._train(
            trainer,
            trainer.plan,
            group,
            training,
            validation,
            goes_on,
            checkpoints=checkpoints,
            resume_from=snapshot,
        )
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    @torch.inference_mode(False)
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Train for one more pass over documents, at a constant learning rate.

        Within a process, the optimizer's state is carried from call to call, unless ``optimizer``,
        ``dropout``, ``weight_norm``, ``device``, ``backend`` or the weights' precision change, or
        ``weights_`` is altered.
        Ctrl-C ends the call after the step under way, and then the loop that it is in: it is raised
        once the model is fitted with that step's weights.

        Parameters
        ----------
        X : iterable of str or bytes, Series, or TextCorpus
            The documents.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As in :meth:`fit`.
        """
        self._validate_params()  # scikit-learn does so for the first call only
        corpus = self._corpus(X)
        group, device = join_launched(resolve_device(self.device))
        goes_on = hasattr(self, "weights_")
        trainer, left = getattr(self, "_running", (None, b""))
        if trainer is None:
            seed = group.from_first(int(check_random_state(self.random_state).randint(2**31)))
        else:
            seed = trainer.plan.seed
        if (
            trainer is None
            or not trainer.can_follow(self._plan(seed, device), device)
            or weights_hash(self.weights_) != left
        ):
            trainer = self._make_trainer(seed, device, goes_on)
        plan = replace(
            self._plan(seed + 1, trainer.device),
            optimization=replace(self._optimization(), schedule="constant"),
            max_epochs=1,
            max_steps=None,
        )
        interrupted = self._train(trainer, plan, group, corpus, None, goes_on)
        self._running = trainer, weights_hash(self.weights_)
        if interrupted:
            raise KeyboardInterrupt
        return self

    def save_pretrained(self, path: str | os.PathLike, *, dtype: StoredDtype = "float32") -> None:
        """Write the model to one ``.safetensors`` file, its configuration in the header.

        Parameters
        ----------
        path : path-like
            The file. It is replaced in one step, once all is written.
        dtype : {"float32", "float16", "int8"}, default="float32"
            How the weights are stored. "int8" is the recurrent matrices in integers from -127
            to 127 and a scale per row, which is how ``precision="int8"`` reads them, and the rest
            in float16: for a model of one layer, a quarter of "float32".

        Raises
        ------
        ValueError
            If the preprocessor is a function, which a file cannot hold, ``config_`` was altered
            to what no file may have, or ``dtype`` is unknown.
        """
        check_is_fitted(self)
        write_model(path, self.weights_, self.config_, dtype)

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike, *, device: str = "auto"
    ) -> "ByteMLSTMLanguageModel":
        """Read a fitted model from disk, or one that ships with the package by its name.

        Parameters
        ----------
        name_or_path : str or path-like
            Name of a shipped model, as "default", or of one in the folder of the data: see
            :func:`~skdiscovery.pretrained.find_model`; a file of :meth:`save_pretrained`; a
            checkpoint in ``checkpoint_dir``, as ``best.safetensors``; or a model of OpenAI's, of
            sentiment-discovery or of pytorch-sentiment-neuron: see
            :func:`~skdiscovery.pretrained.import_model`.
        device : str or torch.device, default="auto"
            Where the model computes.

        Returns
        -------
        ByteMLSTMLanguageModel

        Raises
        ------
        ValueError
            If the model is not found, is damaged or incomplete, or would have to run code to
            load, or the device is not available.
        """
        resolve_device(device)
        return cls._from_imported(import_model(find_model(name_or_path)), device)

    @classmethod
    def _from_imported(cls, imported: ImportedModel, device: str) -> "ByteMLSTMLanguageModel":
        _, weights, config = imported
        architecture = asdict(Architecture.from_config(config))
        model = cls(**architecture, preprocessor=config["preprocessor"], device=device)
        model._set_fitted(weights, config, [], [])
        return model

    def _corpus(self, X: Any) -> TextCorpus:
        if isinstance(X, TextCorpus):
            if X.preprocessor not in (None, self.preprocessor):
                warnings.warn(
                    f"The corpus is text from preprocessor={X.preprocessor!r}, and the model will "
                    f"read texts with preprocessor={self.preprocessor!r}: set both to the same.",
                    stacklevel=4,
                )
            return X
        return TextCorpus.from_documents(X, preprocessor=self.preprocessor)

    def _architecture(self) -> Architecture:
        return Architecture(
            hidden_size=int(self.hidden_size),
            embedding_size=int(self.embedding_size),
            n_layers=int(self.n_layers),
            cell=self.cell,
        )

    def _optimization(self) -> OptimizationOptions:
        return OptimizationOptions(
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            lr_decay=self.lr_decay,
            grad_clip=self.grad_clip,
        )

    def _plan(self, seed: int, device: torch.device) -> TrainingPlan:
        return TrainingPlan(
            self._architecture(),
            self._optimization(),
            seed,
            dropout=self.dropout,
            weight_norm=self.weight_norm,
            dtype=resolve_precision(self.precision, device),
            batch_size=int(self.batch_size),
            seq_length=int(self.seq_length),
            persist_state=self.persist_state,
            max_epochs=self.max_epochs,
            max_steps=self.max_steps,
            checkpoint_every=self.checkpoint_every,
            backend=self.backend,
        )

    def _make_trainer(self, seed: int, device: torch.device, goes_on: bool) -> Trainer:
        """Return a trainer with new weights or, if training goes on, the fitted ones."""
        plan = self._plan(seed, device)
        if not goes_on:
            return Trainer(plan, plan.prepare(plan.new_model(), device))
        self._check_architecture()
        model = model_from_weights(copy.deepcopy(self.weights_), plan.architecture, self.dropout)
        trainer = Trainer(plan, plan.prepare(model, device))
        trainer.n_steps, trainer.n_bytes = self.n_steps_, self.n_bytes_seen_
        trainer.history = _rows(self.history_)
        trainer.validation_history = _rows(self.validation_history_)
        return trainer

    def _check_architecture(self) -> None:
        fitted, architecture = Architecture.from_config(self.config_), self._architecture()
        if fitted != architecture:
            raise ValueError(
                f"Training cannot go on: the fitted model is {fitted}, and the parameters ask for "
                f"{architecture}. Set them back, or train a new model: fit with warm_start=False."
            )

    def _train(
        self,
        trainer: Trainer,
        plan: TrainingPlan,
        group: Group,
        corpus: TextCorpus,
        validation: list[bytes] | None,
        goes_on: bool,
        *,
        checkpoints: CheckpointFolder | None = None,
        resume_from: Snapshot | None = None,
    ) -> bool:
        """Run the trainer by a plan; whatever ends it, be fitted with the weights it has then.

        Returns whether it was interrupted.
        """
        lanes = plan.lanes(corpus)
        validate = None
        if validation is not None:
            encoding.check_scorable(validation)
            validate = partial(encoding.nats_per_byte, trainer.model, validation, plan.dtype)
        job = (plan, corpus)
        device = resolve_device(self.device)
        with complete(group, self.n_devices, device, plan.batch_size, job) as group:
            trainer.plan, trainer.has_begun = plan, False
            # The optimizer's state may be as lost as a step that fails.
            self.__dict__.pop("_running", None)
            try:
                return train(
                    trainer,
                    lanes,
                    group,
                    validate=validate,
                    checkpoints=checkpoints,
                    resume_from=resume_from,
                    verbose=self.verbose,
                )
            finally:
                if trainer.has_begun:
                    self._keep(trainer, goes_on)

    def _keep(self, trainer: Trainer, goes_on: bool) -> None:
        """Be fitted with what the trainer has."""
        validations = trainer.validations_of_run()
        config = make_config(
            self._architecture(),
            self.preprocessor,
            n_steps=trainer.n_steps,
            n_bytes_seen=trainer.n_bytes,
            pooling=self.config_.get("pooling") if goes_on else None,
            bits_per_byte=validations[-1]["bits_per_byte"] if validations else None,
        )
        self._set_fitted(
            folded_weights(trainer.model), config, trainer.history, trainer.validation_history
        )

    def _set_fitted(
        self, weights: Weights, config: Config, history: list[Row], validation_history: list[Row]
    ) -> None:
        self.weights_ = weights
        self.config_ = config
        self.n_steps_ = config["n_steps"]
        self.n_bytes_seen_ = config["n_bytes_seen"]
        self.history_ = pd.DataFrame(history, columns=HISTORY_COLUMNS)
        self.validation_history_ = pd.DataFrame(
            validation_history, columns=VALIDATION_HISTORY_COLUMNS
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what only a running process has; hold numbers only, which any version reads."""
        state = dict(super().__getstate__())  # a copy: sklearn hands out our own __dict__
        state.pop("_running", None)
        for name in _HISTORIES & state.keys():
            state[name] = {column: values.to_numpy() for column, values in state[name].items()}
        if "weights_" in state and all(map(is_locked, self.weights_.values())):
            state["_is_locked"] = True  # which a pickle does not say of an array
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        histories = {name: pd.DataFrame(state[name]) for name in _HISTORIES & state.keys()}
        super().__setstate__(state | histories)
        if self.__dict__.pop("_is_locked", False):
            lock(self.weights_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags


def _rows(history: pd.DataFrame) -> list[Row]:
    return [
        {str(column): value for column, value in row.items()} for row in history.to_dict("records")
    ]
