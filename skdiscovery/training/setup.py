"""What a run needs before its first step: held-out documents, and checkpoints to go on from."""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from skdiscovery.nn.model import Config
from skdiscovery.nn.weights import Weights, weights_hash
from skdiscovery.text.corpus import TextCorpus
from skdiscovery.training.checkpoint import CheckpointFolder, Snapshot

# Parameters that may change when a run is resumed: where and how it computes, not what. What
# warm_start decides is in the initial weights.
_VARYING = {"device", "n_devices", "backend", "checkpoint_dir", "resume", "verbose", "warm_start"}
# And those by which a run is made to go on: for longer, at another pace, against overfitting, or
# with more of it kept.
_ADJUSTABLE = {"checkpoint_every", "dropout", "learning_rate", "max_epochs", "max_steps"}


def hold_out(
    corpus: TextCorpus, fraction: float, seed: int
) -> tuple[TextCorpus, list[bytes] | None]:
    """Return the corpus to train on, and the documents to validate on; None for no fraction.

    Raises
    ------
    ValueError
        If no document is left to train on.
    """
    if fraction == 0:
        return corpus, None
    n_held_out = math.ceil(fraction * len(corpus))
    if n_held_out >= len(corpus):
        raise ValueError(
            f"validation_fraction={fraction} holds out {n_held_out} of {len(corpus)} document(s) "
            "and leaves none to train on: give more documents, a smaller fraction, or X_val."
        )
    train, validation = train_test_split(
        np.arange(len(corpus)), test_size=n_held_out, random_state=seed
    )
    return corpus[np.sort(train)], list(corpus[validation])


def open_checkpoints(
    folder: str | os.PathLike | None,
    resume: bool,
    parameters: Mapping[str, Any],
    corpus: TextCorpus,
    initial: tuple[Weights, Config] | None,
    seed: int,
) -> tuple[CheckpointFolder | None, Snapshot | None, int]:
    """Return the folder to write to, the checkpoint to go on from, and the run's seed.

    ``initial`` is the model that the run starts from; None for a new one. The seed is the one
    given, unless there is a checkpoint to go on from.

    Raises
    ------
    ValueError
        If the folder has checkpoints of another run, or of this one and ``resume`` is False.
    """
    if folder is None:
        if resume:
            raise ValueError("resume=True needs the checkpoint_dir of the run to resume.")
        return None, None, seed
    run = {
        name: _portable_value(value) for name, value in parameters.items() if name not in _VARYING
    }
    weights, config = initial or (None, {})
    origin = "new" if weights is None else f"{weights_hash(weights).hex()[:16]}, by warm_start=True"
    run |= {
        "initial_weights": origin,
        "pooling": config.get("pooling"),
        "n_documents": len(corpus),
        "corpus_hash": corpus.fingerprint(),
    }
    checkpoints = CheckpointFolder(folder, run, seed, may_change=_ADJUSTABLE)
    if resume:
        return checkpoints, checkpoints.latest(), checkpoints.seed
    if checkpoints.files():
        raise ValueError(
            f"checkpoint_dir={os.fspath(folder)!r} has the checkpoints of a run: resume it with "
            "resume=True, or give another folder."
        )
    return checkpoints, None, seed


def _portable_value(value: Any) -> int | float | str | None:
    """Return what a parameter is known by when a run is resumed, which no address may be part of.

    What a function makes of the texts is in the corpus' hash, and a generator's seed in the run's.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, int | float | str | None):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)
