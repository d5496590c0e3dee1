"""The optimisation loop: truncated backpropagation through time over lanes with carried state."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skdiscovery.nn import ByteLanguageModel, State
from skdiscovery.ops import has_narrow_products, own_arithmetic
from skdiscovery.training.checkpoint import BEST, CheckpointFolder, Snapshot
from skdiscovery.training.distribution import ALONE, Group
from skdiscovery.training.history import LOG_EVERY, Log, in_both_units
from skdiscovery.training.interrupt import noted_interrupt
from skdiscovery.training.lanes import NOT_A_TARGET, Batch, Lanes
from skdiscovery.training.memory import lanes_at_once
from skdiscovery.training.optimization import make_schedule
from skdiscovery.training.trainer import Trainer

logger = logging.getLogger("skdiscovery")


@dataclass
class _Position:
    """Where a run stands: ``batch`` batches of epoch ``epoch`` (from 1) are done.

    ``states`` are those of the lanes of this rank.
    """

    states: list[State]
    step: int = 0
    epoch: int = 1
    batch: int = 0


class _StreamLoss(nn.Module):
    """A model and its loss in one call, as DistributedDataParallel wants it."""

    def __init__(self, model: ByteLanguageModel):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, states: list[State]) -> tuple[Tensor, list[State]]:
        """Return what the lanes given add to the loss of the whole batch, and their states."""
        top, states = self.model(batch.inputs, states, batch.keep)
        nats = nn.functional.cross_entropy(
            self.model.logits(top).flatten(0, 1),
            batch.targets.flatten(),
            ignore_index=NOT_A_TARGET,
            reduction="sum",
        )
        # Copies: views of the last step would keep all others.
        return nats / batch.n_bytes, [(h.detach().clone(), c.detach().clone()) for h, c in states]


def train(
    trainer: Trainer,
    lanes: Lanes,
    group: Group = ALONE,
    *,
    validate: Callable[[], float] | None = None,
    checkpoints: CheckpointFolder | None = None,
    resume_from: Snapshot | None = None,
    verbose: int = 0,
) -> bool:
    """Train over ``lanes`` for the plan's epochs or steps, whichever ends first.

    When due and at the end, ``validate`` is called, which returns a loss in nats per byte, and a
    checkpoint is written. ``resume_from`` is the one to go on from. Ctrl-C ends the run after the
    step under way, with a checkpoint; a second one ends it at once, with none.

    Returns whether it was interrupted.

    In a group of ranks each reads its own of the lanes; the first alone needs to know of
    validation and checkpoints, and the others start from its weights.

    Raises
    ------
    ValueError
        If the loss is no longer finite; the model then has the last weights known to be good.
    MemoryError
        If not even one lane's sequence fits into memory.
    """
    return _Run(trainer, lanes, group, validate, checkpoints).execute(resume_from, verbose)


class _Run:
    """One run of a trainer over lanes: where it stands, and who takes part."""

    def __init__(
        self,
        trainer: Trainer,
        lanes: Lanes,
        group: Group,
        validate: Callable[[], float] | None,
        checkpoints: CheckpointFolder | None,
    ):
        self.trainer = trainer
        self.plan = trainer.plan
        self.lanes = lanes
        self.group = group
        self.validate = validate
        self.checkpoints = checkpoints
        self.is_validated, self.is_saved, plan, n_bytes = group.from_first(
            (validate is not None, checkpoints is not None, self.plan, lanes.n_bytes)
        )
        if (plan, n_bytes) != (self.plan, lanes.n_bytes):
            raise ValueError(
                f"Rank {group.rank} has {self.plan} and {lanes.n_bytes} bytes of text, but the "
                f"first rank has {plan} and {n_bytes}: give all ranks the same."
            )
        self.n_steps = self.plan.max_epochs * lanes.n_batches
        if self.plan.max_steps is not None:
            self.n_steps = min(self.n_steps, self.plan.max_steps)
        self.my_lanes = group.share_of(lanes.batch_size)
        self.n_lanes = self.my_lanes.stop - self.my_lanes.start
        self.at_once = lanes_at_once(
            trainer.model, self.plan.dtype, self.n_lanes, lanes.seq_length, group.local_size
        )
        self.position = _Position(trainer.model.zero_state(self.n_lanes, self.plan.dtype))
        self.loss_of: nn.Module = _StreamLoss(trainer.model)

    def execute(self, resume_from: Snapshot | None, verbose: int) -> bool:
        """Run to the end, or to an interrupt; return whether that came."""
        trainer, position = self.trainer, self.position
        trainer.has_begun = True
        if self.group.size > 1:
            start = self._snapshot()
            resume_from = self.group.from_first(resume_from or start)
            self.loss_of = DistributedDataParallel(self.loss_of)
        if resume_from is not None:
            self._restore(resume_from)
        if position.step >= self.n_steps and self.group.is_first:
            logger.warning(
                "nothing is left to do: step %d of %d is done; more max_epochs or max_steps make "
                "the run longer", position.step, self.n_steps,
            )  # fmt: skip
        trainer.n_steps_before = trainer.n_steps - position.step
        schedule = make_schedule(
            trainer.optimizer,
            self.plan.optimization,
            self.n_steps,
            self.lanes.n_batches,
            position.step,
        )
        self._keep_weights()
        bytes_per_step = self.lanes.n_bytes / self.lanes.n_batches
        n_done, n_total = (round(n * bytes_per_step) for n in (position.step, self.n_steps))
        interrupted = False
        with (
            own_arithmetic(trainer.device),
            Log(n_done, n_total, bool(verbose) and self.group.is_first) as log,
            noted_interrupt() as interrupt,
        ):
            try:
                for batch in self._batches():
                    learning_rate = float(schedule.get_last_lr()[0])
                    loss, grad_norm = self._step(batch)
                    schedule.step()
                    log.note(batch.n_bytes, loss)
                    is_due = position.step % self.plan.checkpoint_every == 0
                    is_due |= position.step == self.n_steps
                    stops = self.group.any(interrupt.is_set())
                    if is_due or stops or position.step % LOG_EVERY == 0:
                        self._add_to_history(log, learning_rate, grad_norm)
                    if is_due or stops:
                        self._save(is_best=is_due and self._validate())
                        log.start_row()
                    if stops:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                interrupted = True
                logger.warning("interrupted after step %d: keeping its weights", trainer.n_steps)
        self._warn_if_earlier_was_better()
        return interrupted

    def _batches(self) -> Iterator[Batch]:
        position = self.position
        while position.step < self.n_steps:
            seed = self.plan.seed, position.epoch
            for batch in self.lanes.epoch(seed, position.batch, self.my_lanes):
                yield batch
                if position.step == self.n_steps:
                    return
            position.epoch, position.batch = position.epoch + 1, 0

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Make one update; return this rank's part of the loss, and the gradient's norm.

        A batch that does not fit into memory goes through the model a few lanes at a time.
        """
        trainer, position = self.trainer, self.position
        if self.plan.dropout:  # a function of the step: no generator's state needs to be saved
            seed = np.random.SeedSequence((self.plan.seed, position.step, self.group.rank))
            trainer.model.dropout.seed(int(seed.generate_state(1)[0]), trainer.device)
        trainer.model.train()
        trainer.optimizer.zero_grad()
        n_lanes = batch.inputs.shape[1]
        losses, states = [], []
        for first in range(0, n_lanes, self.at_once):
            chosen = slice(first, first + self.at_once)
            is_last = chosen.stop >= n_lanes
            part = batch.of_lanes(chosen).to(trainer.device, self.plan.dtype)
            before = [(h[chosen], c[chosen]) for h, c in position.states]
            with self._gradients_kept_here(not is_last):
                with self._autocast():
                    loss, after = self.loss_of(part, before)
                # DistributedDataParallel takes the ranks' mean, and their sum is wanted.
                (loss * self.group.size).backward()
            losses.append(loss.detach())
            states.append(after)
        grad_norm = nn.utils.clip_grad_norm_(
            trainer.model.parameters(), self.plan.optimization.grad_clip or math.inf
        )
        trainer.optimizer.step()
        position.states = [
            (torch.cat([h for h, _ in layer]), torch.cat([c for _, c in layer]))
            for layer in zip(*states, strict=True)
        ]
        trainer.n_steps += 1
        trainer.n_bytes += batch.n_bytes
        position.step += 1
        position.batch += 1
        return torch.stack(losses).sum(), grad_norm

    def _autocast(self) -> AbstractContextManager:
        device = self.trainer.device.type
        is_faster = device != "cpu" or has_narrow_products()
        is_reduced = self.plan.dtype == torch.bfloat16 and is_faster
        # A cache is emptied at the end of the outermost autocast alone: it would outlast updates.
        return torch.autocast(device, torch.bfloat16, is_reduced, cache_enabled=False)

    def _gradients_kept_here(self, kept: bool) -> AbstractContextManager:
        """Let gradients add up on this rank, to be summed over the ranks with the last ones."""
        if kept and isinstance(self.loss_of, DistributedDataParallel):
            return self.loss_of.no_sync()
        return nullcontext()

    def _add_to_history(self, log: Log, learning_rate: float, grad_norm: Tensor) -> None:
        """Add a row over the steps noted, after a check that all their losses are finite."""
        trainer = self.trainer
        losses = self.group.sum(torch.stack(log.losses)).tolist()
        self._check(losses, log.n_bytes)
        trainer.history.append(
            {
                "step": trainer.n_steps,
                "epoch": self.position.epoch,
                "bytes": trainer.n_bytes,
                "learning_rate": learning_rate,
                "grad_norm": float(grad_norm),
                **log.row(sum(losses) / len(losses)),
            }
        )
        self._keep_weights()

    def _check(self, losses: list[float], n_bytes: int) -> None:
        trainer, options = self.trainer, self.plan.optimization
        bad = next((k for k, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if bad is not None:
            what, step = f"loss became {losses[bad]}", trainer.n_steps - len(losses) + bad + 1
        elif not all(weight.isfinite().all() for weight in trainer.model.parameters()):
            what, step = "weights became infinite or nan", trainer.n_steps
        else:
            return
        trainer.n_steps -= len(losses)
        trainer.n_bytes -= n_bytes
        trainer.model.load_state_dict(self.good_weights)
        raise ValueError(
            f"The {what} at step {step}: training stopped, and the model keeps the weights of step "
            f"{trainer.n_steps}. Lower learning_rate or grad_clip (now "
            f"{options.learning_rate} and {options.grad_clip})."
        )

    def _keep_weights(self) -> None:
        state = self.trainer.model.state_dict()
        self.good_weights = {name: tensor.detach().clone() for name, tensor in state.items()}

    def _validate(self) -> bool:
        """Measure the loss on held-out documents, if there are any; return if it is the best."""
        trainer = self.trainer
        if not self.is_validated:
            return False
        loss = math.nan
        if self.validate is not None and self.group.is_first:
            loss = self.validate()
        loss = self.group.from_first(loss)
        is_best = all(loss < before["loss"] for before in trainer.validations_of_run())
        trainer.validation_history.append(
            {
                "step": trainer.n_steps,
                "epoch": self.position.epoch,
                "bytes": trainer.n_bytes,
                **in_both_units(loss),
            }
        )
        return is_best

    def _warn_if_earlier_was_better(self) -> None:
        """Warn if held-out text says that an earlier model was better than the last."""
        validations = self.trainer.validations_of_run()
        if not validations or not self.group.is_first:
            return
        best, last = min(validations, key=lambda row: row["loss"]), validations[-1]
        if best["loss"] < last["loss"]:
            kept = self.checkpoints and self.checkpoints.folder / BEST
            logger.warning(
                "validation ends with %.3f bits per byte, and was at %.3f after step %d: %s",
                last["bits_per_byte"], best["bits_per_byte"], best["step"],
                f"{kept} has that model" if kept else "checkpoint_dir would have kept that model",
            )  # fmt: skip

    def _save(self, is_best: bool) -> None:
        """Write a checkpoint, if there is a folder for it."""
        if self.is_saved:
            snapshot = self._snapshot()
            if self.checkpoints is not None:
                self.checkpoints.save(self.position.step, snapshot, is_best=is_best)

    def _snapshot(self) -> Snapshot:
        """Return all that :meth:`_restore` needs, with the states of all ranks' lanes."""
        position = self.position
        tensors, values = self.trainer.snapshot()
        for k, (h, c) in enumerate(position.states):
            for name, state in (("hidden", h), ("cell", c)):
                # The cell's dtype, which has all values of the hidden state's.
                everyone = c.new_zeros(self.lanes.batch_size, state.shape[1])
                everyone[self.my_lanes] = state.to(c)
                tensors[f"{name}.{k}"] = self.group.sum(everyone)
        values |= {"step": position.step, "epoch": position.epoch, "batch": position.batch}
        # Sums, and dropout's masks, depend on the parts that a batch goes through the model in:
        # those of the first rank.
        values["lanes_at_once"] = self.at_once if self.at_once < self.n_lanes else None
        # Copies: safetensors wants contiguous tensors that share no memory.
        copies = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return Snapshot(copies, values)

    def _restore(self, snapshot: Snapshot) -> None:
        """Put model, optimizer, history and position back to what they were."""
        self.trainer.restore(snapshot)
        tensors, values, position = snapshot.tensors, snapshot.values, self.position
        position.step, position.epoch = values["step"], values["epoch"]
        position.batch = values["batch"]
        parts = values["lanes_at_once"]
        if parts is not None and parts < self.at_once:
            self.at_once = parts
            logger.warning("the run goes on as it began: %d lanes of a batch at a time", parts)
        position.states = [
            (
                tensors[f"hidden.{k}"][self.my_lanes].to(h, copy=True),
                tensors[f"cell.{k}"][self.my_lanes].to(c, copy=True),
            )
            for k, (h, c) in enumerate(position.states)
        ]
        tensors.clear()  # all was copied, and would take memory as long as training
