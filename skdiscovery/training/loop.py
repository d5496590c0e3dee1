"""The optimisation loop: truncated backpropagation through time over lanes with carried state."""

import logging
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from skdiscovery.nn import ByteLanguageModel, State
from skdiscovery.ops import flush_denormals
from skdiscovery.training.lanes import Batch, Lanes
from skdiscovery.training.optimization import OptimizationOptions, make_optimizer, make_schedule

logger = logging.getLogger("skdiscovery")

LOG_EVERY = 10
"""Steps between two rows of the history. Between them, nothing waits for the device."""

Row = dict[str, float]

VALIDATION_HISTORY_COLUMNS = ["step", "epoch", "bytes", "loss", "bits_per_byte"]
HISTORY_COLUMNS = [
    *VALIDATION_HISTORY_COLUMNS, "learning_rate", "grad_norm", "bytes_per_second"
]  # fmt: skip


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
        validate: Callable[[], float] | None = None,
        validate_every: int,
        verbose: int = 0,
    ) -> None:
        """Train over ``lanes`` for ``max_epochs`` or ``max_steps``, whichever ends first.

        ``validate`` returns a loss in nats per byte; it is called every ``validate_every`` steps
        and at the end. An interrupt (Ctrl-C) ends the run after the last whole step.

        Raises
        ------
        ValueError
            If the loss is no longer finite; the model then has the last weights known to be good.
        """
        n_steps = max_epochs * lanes.n_batches
        if max_steps is not None:
            n_steps = min(n_steps, max_steps)
        schedule = make_schedule(self.optimizer, self.options, n_steps, lanes.n_batches)
        states = self.model.zero_state(lanes.batch_size, self.dtype)
        log = _Log(self, n_steps * lanes.n_bytes // lanes.n_batches, verbose)
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with flush_denormals(), log, torch.random.fork_rng(devices):
                torch.manual_seed(self.random_state.randint(2**31))
                batches = _batches(lanes, self.random_state, n_steps)
                for step, (epoch, batch) in enumerate(batches, 1):
                    learning_rate = float(schedule.get_last_lr()[0])
                    loss, grad_norm, states = self._step(batch, states)
                    schedule.step()
                    log.record(batch.n_bytes, loss)
                    if step % LOG_EVERY == 0 or step == n_steps:
                        log.write(epoch, learning_rate, grad_norm)
                    if validate and (step % validate_every == 0 or step == n_steps):
                        self._validate(validate, epoch)
        except KeyboardInterrupt:
            logger.warning("interrupted after step %d: keeping its weights", self.n_steps)

    def _step(self, batch: Batch, states: list[State]) -> tuple[Tensor, Tensor, list[State]]:
        batch = batch.to(self.device, states[0][0].dtype)
        self.model.train()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, self.dtype == torch.bfloat16):
            top, states = self.model(batch.inputs, states, batch.keep)
            logits = self.model.head(top)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(
            self.model.parameters(), self.options.grad_clip or math.inf
        )
        self.optimizer.step()
        self.n_steps += 1
        self.n_bytes += batch.n_bytes
        return loss.detach(), grad_norm, [(h.detach(), c.detach()) for h, c in states]

    def _validate(self, validate: Callable[[], float], epoch: int) -> None:
        loss = validate()
        self.validation_history.append(
            {"step": self.n_steps, "epoch": epoch, "bytes": self.n_bytes, **_in_both_units(loss)}
        )


def _batches(
    lanes: Lanes, random_state: np.random.RandomState, n_steps: int
) -> Iterator[tuple[int, Batch]]:
    """Yield ``n_steps`` batches with the number of their epoch, from 1."""
    epoch = 0
    while n_steps > 0:
        epoch += 1
        for batch in lanes.epoch(random_state):
            if n_steps == 0:
                return
            n_steps -= 1
            yield epoch, batch


class _Log:
    """The steps since the last row of the history, and a progress bar."""

    def __init__(self, trainer: Trainer, n_bytes: int, verbose: int):
        self.trainer = trainer
        self.bar = tqdm(total=n_bytes, unit="B", unit_scale=True, disable=not verbose)
        self.good_weights = self._copy_weights()
        self._start()

    def __enter__(self) -> None: ...

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
        bad = next((k for k, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is None:
            return
        trainer = self.trainer
        step = trainer.n_steps - len(losses) + bad + 1
        trainer.n_steps -= len(losses)
        trainer.n_bytes -= self.n_bytes
        trainer.model.load_state_dict(self.good_weights)
        raise ValueError(
            f"The loss became {losses[bad]} at step {step}: training stopped, and the model keeps "
            f"the weights of step {trainer.n_steps}. Lower learning_rate or grad_clip "
            f"(now {trainer.options.learning_rate} and {trainer.options.grad_clip})."
        )

    def _copy_weights(self) -> dict[str, Tensor]:
        state = self.trainer.model.state_dict()
        return {name: tensor.detach().clone() for name, tensor in state.items()}


def _in_both_units(loss: float) -> Row:
    return {"loss": loss, "bits_per_byte": loss / math.log(2)}
