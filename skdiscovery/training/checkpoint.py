"""Checkpoints: all that a run needs to go on as if it had not been killed.

A checkpoint is one ``.safetensors`` file, tensors and JSON: nothing in it can run code. It is
written whole or not at all, and holds a hash of its contents, by which later damage shows.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from skdiscovery.files import remove_unfinished, whole_file

logger = logging.getLogger("skdiscovery")

N_KEPT = 3
BEST = "best.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one step: tensors, and values that JSON can hold."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


class CheckpointFolder:
    """The last checkpoints of one run, and its best on validation.

    Parameters
    ----------
    folder : path-like
        Where they are; made if missing.
    run : dict
        What makes it this run and no other: parameters, and the corpus. JSON-able.
    seed : int
        What all randomness of the run comes from; :meth:`latest` replaces it by that of the
        checkpoint it reads.
    may_change : collection of str
        Of ``run``, what a checkpoint to go on from may have otherwise.

    Raises
    ------
    OSError
        If the folder cannot be made or written to: known before hours of training, not after.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        run: dict[str, Any],
        seed: int,
        may_change: Collection[str] = (),
    ):
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise OSError(
                f"checkpoint_dir={os.fspath(folder)!r} cannot be written to: {error}. Name another "
                "folder."
            ) from error
        remove_unfinished(self.folder)
        self.run = json.loads(json.dumps(run))
        self.seed = seed
        self.may_change = may_change

    def files(self) -> list[Path]:
        """Return the files of the last checkpoints, the oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def save(self, step: int, snapshot: Snapshot, *, is_best: bool) -> None:
        """Write a checkpoint, and remove those that are no longer among the last."""
        header = {
            "run": json.dumps(self.run),
            "seed": str(self.seed),
            "values": json.dumps(snapshot.values),
            "sha256": _hash(snapshot),
        }
        header["sha256_of_header"] = _hash_of_header(header)
        path = self.folder / f"step-{step:012d}.safetensors"
        with whole_file(path) as temporary:
            save_file(snapshot.tensors, temporary, metadata=header)
            if is_best:  # there before the step is: a run that is killed between comes here again
                with whole_file(self.folder / BEST) as best:
                    shutil.copyfile(temporary, best)
        for old in self.files()[:-N_KEPT]:
            old.unlink()

    def latest(self) -> Snapshot | None:
        """Return the newest checkpoint that is whole; None if there is none.

        Raises
        ------
        ValueError
            If the checkpoints are of another run, or all of them are damaged.
        """
        files = self.files()
        for path in reversed(files):
            try:
                return self._read(path)
            except DamagedError as error:
                logger.warning("%s is damaged (%s): trying the one before", path, error)
        if files:
            raise ValueError(
                f"All checkpoints in {os.fspath(self.folder)!r} are damaged: to start the training "
                f"anew, remove {', '.join(path.name for path in files)}."
            )
        return None

    def _read(self, path: Path) -> Snapshot:
        snapshot, run, seed = read_checkpoint(path)
        self._check_run(path, run)
        self.seed = seed
        return snapshot

    def _check_run(self, path: Path, run: dict[str, Any]) -> None:
        differences = {
            name: f"{name} was {run.get(name)!r} and is {self.run.get(name)!r}"
            for name in sorted(run.keys() | self.run.keys())
            if run.get(name) != self.run.get(name)
        }
        refused = [text for name, text in differences.items() if name not in self.may_change]
        if refused:
            raise ValueError(
                f"{os.fspath(path)!r} is of another run: {'; '.join(refused)}. Set these back, "
                "or give another checkpoint_dir."
            )
        if differences:
            logger.warning("going on from %s: %s", path, "; ".join(differences.values()))


class DamagedError(Exception):
    """A checkpoint that is not what was written."""


def read_checkpoint(path: Path) -> tuple[Snapshot, dict[str, Any], int]:
    """Return the state that a checkpoint holds, the run that it is of, and the run's seed.

    Raises
    ------
    DamagedError
        If it is not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            # Copies, aligned as torch's own are: in which order kernels sum may depend on it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        snapshot = Snapshot(tensors, json.loads(header["values"]))
        run, seed = json.loads(header["run"]), int(header["seed"])
        hashes = (header["sha256"], header["sha256_of_header"])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(error) from error
    if hashes != (_hash(snapshot), _hash_of_header(header)):
        raise DamagedError("its contents do not match its hash")
    return snapshot, run, seed


def _hash(snapshot: Snapshot) -> str:
    digest = sha256(json.dumps(snapshot.values, sort_keys=True).encode())
    for name, tensor in sorted(snapshot.tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _hash_of_header(header: dict[str, str]) -> str:
    return sha256(json.dumps([header["run"], header["seed"]]).encode()).hexdigest()
