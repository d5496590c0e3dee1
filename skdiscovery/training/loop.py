"""The optimisation loop: truncated backpropagation through time over lanes with carried state."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from skdiscovery.nn import ByteLanguageModel, State
from skdiscovery.ops import flush_denormals
from skdiscovery.training.checkpoint import CheckpointFolder, Snapshot
from skdiscovery.training.lanes import Batch, Lanes
from skdiscovery.training.optimization import OptimizationOptions, make_optimizer, make_schedule

logger = logging.getLogger("skdiscovery")

LOG_EVERY = 10
"""Steps between two rows of the history. Between them, nothing waits for the device."""

Row = dict[str, float]

VALIDATION_HISTORY_COLUMNS = ["step", "epoch", "bytes", "loss", "bits_per_byte"]
HISTORY_COLUMNS = [*VALIDATION_HISTORY_COLUMNS, "learning_rate", "grad_norm", "bytes_per_second"]


@dataclass
class _Position:
    """Where a run stands: ``batch`` batches of epoch ``epoch`` (from 1) are done."""

    states: list[State]
    step: int = 0
    epoch: int = 1
    batch: int = 0
    order: dict[str, Any] | None = None  # the generator's state that the epoch's order came from


class Trainer:
    """A model in training: its optimizer, the state its lanes carry, and what it has seen.

    Parameters
    ----------
    model : ByteLanguageModel
        The model, on the device where it trains.
    options : OptimizationOptions
        Optimizer, learning rate, schedule, clipping.
    dtype : torch.dtype
        The dtype of the recurrent products. Parameters keep their own.
    random_state : RandomState
        Source of the order of the documents and of dropout.

    Attributes
    ----------
    n_steps, n_bytes : int
        Updates made, and bytes predicted.
    history, validation_history : list of dict
        A row per logged step, and per validation.
    """

    def __init__(
        self,
        model: ByteLanguageModel,
        options: OptimizationOptions,
        dtype: torch.dtype,
        random_state: np.random.RandomState,
    ):
        self.model = model
        self.options = options
        self.dtype = dtype
        self.random_state = random_state
        self.n_steps = 0
        self.n_bytes = 0
        self.history: list[Row] = []
        self.validation_history: list[Row] = []
        self.optimizer = make_optimizer(model, options)
        self.device = model.embedding.device

    def run(
        self,
        lanes: Lanes,
        *,
        max_epochs: int,
        max_steps: int | None,
        checkpoint_every: int,
        validate: Callable[[], float] | None = None,
        checkpoints: CheckpointFolder | None = None,
        resume_from: Snapshot | None = None,
        verbose: int = 0,
    ) -> None:
        """Train over ``lanes`` for ``max_epochs`` or ``max_steps``, whichever ends first.

        Every ``checkpoint_every`` steps and at the end, ``validate`` is called, which returns a
        loss in nats per byte, and a checkpoint is written. ``resume_from`` is the one to go on
        from. An interrupt (Ctrl-C) ends the run after the last whole step.

        Raises
        ------
        ValueError
            If the loss is no longer finite; the model then has the last weights known to be good.
        """
        n_steps = max_epochs * lanes.n_batches
        if max_steps is not None:
            n_steps = min(n_steps, max_steps)
        position = _Position(self.model.zero_state(lanes.batch_size, self.dtype))
        cuda = [self.device] if self.device.type == "cuda" else []
        with flush_denormals(), torch.random.fork_rng(cuda):
            torch.manual_seed(self.random_state.randint(2**31))
            if resume_from is not None:
                self._restore(resume_from, position)
            schedule = make_schedule(
                self.optimizer, self.options, n_steps, lanes.n_batches, position.step
            )
            try:
                with _Log(self, position.step, n_steps, lanes, verbose) as log:
                    for batch in self._batches(lanes, position, n_steps):
                        learning_rate = float(schedule.get_last_lr()[0])
                        loss, grad_norm = self._step(batch, position)
                        schedule.step()
                        log.record(batch.n_bytes, loss)
                        is_due = position.step % checkpoint_every == 0 or position.step == n_steps
                        if is_due or position.step % LOG_EVERY == 0:
                            log.write(position.epoch, learning_rate, grad_norm)
                        if is_due:
                            is_best = validate is not None and self._validate(validate, position)
                            if checkpoints is not None:
                                snapshot = self._snapshot(position)
                                checkpoints.save(position.step, snapshot, is_best=is_best)
            except KeyboardInterrupt:
                logger.warning("interrupted after step %d: keeping its weights", self.n_steps)

    def _batches(self, lanes: Lanes, position: _Position, n_steps: int) -> Iterator[Batch]:
        while position.step < n_steps:
            if position.order is None:
                position.order = self.random_state.get_state(legacy=False)
            else:  # an epoch that was begun before a kill: the same order again
                self.random_state.set_state(position.order)
            for batch in lanes.epoch(self.random_state, first_batch=position.batch):
                yield batch
                if position.step == n_steps:
                    return
            position.epoch, position.batch, position.order = position.epoch + 1, 0, None

    def _step(self, batch: Batch, position: _Position) -> tuple[Tensor, Tensor]:
        """Make one update; return the loss, and the norm of the gradient before clipping."""
        batch = batch.to(self.device, self.dtype)
        self.model.train()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, self.dtype == torch.bfloat16):
            top, states = self.model(batch.inputs, position.states, batch.keep)
            logits = self.model.head(top)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.options.grad_clip or math.inf
        )
        self.optimizer.step()
        self.n_steps += 1
        self.n_bytes += batch.n_bytes
        position.states = [(h.detach(), c.detach()) for h, c in states]
        position.step += 1
        position.batch += 1
        return loss.detach(), grad_norm

    def _validate(self, validate: Callable[[], float], position: _Position) -> bool:
        """Add a row to the validation history; return whether it is the best so far."""
        row = {
            "step": self.n_steps,
            "epoch": position.epoch,
            "bytes": self.n_bytes,
            **_in_both_units(validate()),
        }
        self.validation_history.append(row)
        return row["loss"] == min(before["loss"] for before in self.validation_history)

    def _snapshot(self, position: _Position) -> Snapshot:
        """Return all that :meth:`_restore` needs."""
        tensors = {f"model.{name}": w for name, w in self.model.state_dict().items()}
        optimizer: dict[str, Any] = {}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, entry in entries.items():
                key = f"optimizer.{index}.{name}"
                (tensors if isinstance(entry, Tensor) else optimizer)[key] = entry
        for k, (h, c) in enumerate(position.states):
            tensors |= {f"hidden.{k}": h, f"cell.{k}": c}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        assert position.order is not None
        generator = position.order["state"]
        key = np.asarray(generator["key"]).tolist()  # a list already, after a resume
        order = {**position.order, "state": {**generator, "key": key}}
        values = {
            "n_steps": self.n_steps,
            "n_bytes": self.n_bytes,
            "step": position.step,
            "epoch": position.epoch,
            "batch": position.batch,
            "order": order,
            "optimizer": optimizer,
            "history": self.history,
            "validation_history": self.validation_history,
        }
        # Copies: safetensors wants contiguous tensors that share no memory.
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return Snapshot(copies, values)

    def _restore(self, snapshot: Snapshot, position: _Position) -> None:
        """Put model, optimizer, generators, history and position back to what they were."""
        tensors, values = snapshot.tensors, snapshot.values
        self.model.load_state_dict(
            {name: tensors[f"model.{name}"] for name in self.model.state_dict()}
        )
        optimizer = self.optimizer.state_dict()
        entries = {n: t for n, t in tensors.items() if n.startswith("optimizer.")}
        for key, entry in (entries | values["optimizer"]).items():
            _, index, name = key.split(".", 2)
            optimizer["state"].setdefault(int(index), {})[name] = entry
        self.optimizer.load_state_dict(optimizer)
        torch.set_rng_state(tensors["random.cpu"])
        if self.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], self.device)
        self.n_steps, self.n_bytes = values["n_steps"], values["n_bytes"]
        self.history, self.validation_history = values["history"], values["validation_history"]
        position.step, position.epoch = values["step"], values["epoch"]
        position.batch, position.order = values["batch"], values["order"]
        position.states = [
            (tensors[f"hidden.{k}"].to(h), tensors[f"cell.{k}"].to(c))
            for k, (h, c) in enumerate(position.states)
        ]


class _Log:
    """The steps since the last row of the history, and a progress bar."""

    def __init__(self, trainer: Trainer, n_done: int, n_steps: int, lanes: Lanes, verbose: int):
        self.trainer = trainer
        self.bar = tqdm(
            initial=n_done * lanes.n_bytes // lanes.n_batches,
            total=n_steps * lanes.n_bytes // lanes.n_batches,
            unit="B",
            unit_scale=True,
            disable=not verbose,
        )
        self.good_weights = self._copy_weights()
        self._start()

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def record(self, n_bytes: int, loss: Tensor) -> None:
        """Note one step, without waiting for its loss."""
        self.n_bytes += n_bytes
        self.losses.append(loss)

    def write(self, epoch: int, learning_rate: float, grad_norm: Tensor) -> None:
        """Add a row over the steps noted, after a check that all their losses are finite."""
        losses = torch.stack(self.losses).tolist()
        self._check(losses)
        seconds = time.perf_counter() - self.started
        loss = sum(losses) / len(losses)
        row = {
            "step": self.trainer.n_steps,
            "epoch": epoch,
            "bytes": self.trainer.n_bytes,
            **_in_both_units(loss),
            "learning_rate": learning_rate,
            "grad_norm": float(grad_norm),
            "bytes_per_second": self.n_bytes / seconds,
        }
        self.trainer.history.append(row)
        self.bar.set_postfix_str(f"{row['bits_per_byte']:.3f} bits per byte", refresh=False)
        self.bar.update(self.n_bytes)
        self.good_weights = self._copy_weights()
        self._start()

    def _start(self) -> None:
        self.started = time.perf_counter()
        self.n_bytes = 0
        self.losses: list[Tensor] = []

    def _check(self, losses: list[float]) -> None:
        trainer = self.trainer
        bad = next((k for k, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            what, step = f"loss became {losses[bad]}", trainer.n_steps - len(losses) + bad + 1
        elif not all(weight.isfinite().all() for weight in trainer.model.parameters()):
            what, step = "weights became infinite or nan", trainer.n_steps
        else:
            return
        trainer.n_steps -= len(losses)
        trainer.n_bytes -= self.n_bytes
        trainer.model.load_state_dict(self.good_weights)
        raise ValueError(
            f"The {what} at step {step}: training stopped, and the model keeps the weights of step "
            f"{trainer.n_steps}. Lower learning_rate or grad_clip (now "
            f"{trainer.options.learning_rate} and {trainer.options.grad_clip})."
        )

    def _copy_weights(self) -> dict[str, Tensor]:
        state = self.trainer.model.state_dict()
        return {name: tensor.detach().clone() for name, tensor in state.items()}


def _in_both_units(loss: float) -> Row:
    return {"loss": loss, "bits_per_byte": loss / math.log(2)}
