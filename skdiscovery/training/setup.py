"""What a run needs before its first step: held-out documents, and checkpoints to go on from."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from skdiscovery.text.corpus import TextCorpus
from skdiscovery.training.checkpoint import CheckpointFolder, Snapshot

# Parameters that may change when a run is resumed: where and how it computes, not what.
_VARYING = {"device", "n_devices", "backend", "checkpoint_dir", "resume", "verbose"}


def hold_out(
    corpus: TextCorpus, fraction: float, random_state: np.random.RandomState
) -> tuple[TextCorpus, list[bytes] | None]:
    """Return the corpus to train on, and the documents to validate on; None for no fraction."""
    if fraction == 0:
        return corpus, None
    train, validation = train_test_split(
        np.arange(len(corpus)), test_size=fraction, random_state=random_state
    )
    return corpus[np.sort(train)], list(corpus[validation])


def open_checkpoints(
    folder: str | os.PathLike | None,
    resume: bool,
    parameters: Mapping[str, Any],
    corpus: TextCorpus,
) -> tuple[CheckpointFolder | None, Snapshot | None]:
    """Return the folder to write to, and the checkpoint to go on from, where there are such.

    Raises
    ------
    ValueError
        If the folder has checkpoints of another run, or of this one and ``resume`` is False.
    """
    if folder is None:
        if resume:
            raise ValueError("resume=True needs the checkpoint_dir of the run to resume.")
        return None, None
    run = {
        name: value if isinstance(value, int | float | str | None) else repr(value)
        for name, value in parameters.items()
        if name not in _VARYING
    }
    checkpoints = CheckpointFolder(
        folder, {**run, "n_documents": len(corpus), "corpus_hash": corpus.fingerprint()}
    )
    if resume:
        return checkpoints, checkpoints.latest()
    if checkpoints.files():
        raise ValueError(
            f"checkpoint_dir={os.fspath(folder)!r} has the checkpoints of a run: resume it with "
            "resume=True, or give another folder."
        )
    return checkpoints, None
