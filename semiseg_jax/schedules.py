"""Numbers that follow the step: pure functions, inside or outside jit."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp

from semiseg_jax.values import (
  Momentum,
  NotNegative,
  Positive,
  Range,
  Share,
  Steps,
  StepsFrom0,
  Such,
  is_rising,
)

Momenta = Annotated[
  tuple[Momentum, Momentum],
  Such("two numbers from 0 to below 1, the smaller first, or ()", is_rising),
]


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The same learning rate at every step; what all schedules have.

  first: what the first step counts as: 0; 1 where the original moves its schedule before the
  optimiser (C3-SemiSeg, the zoo); -1 where the rate lags a step behind (UniMatch V2).
  warmup_steps: counts below have peak * count / warmup_steps instead.
  """

  first: Annotated[int, Range(-1, 1)] = 0
  warmup_steps: StepsFrom0 = 0
  momenta = ()  # (low, high) of the momentum of a schedule that moves it too

  def rate(self, peak: float, steps: int, step: jax.Array) -> jax.Array:
    """Of a step, counted from 0, of a run of `steps`; peak: the optimiser's learning rate."""
    count = jnp.maximum(step + self.first, 0)
    warmup = peak * count / max(self.warmup_steps, 1)
    return jnp.where(count < self.warmup_steps, warmup, self.curve(peak, steps, count))

  def curve(self, peak: float, steps: int, count: jax.Array) -> jax.Array:
    """The rate without warm-up."""
    return jnp.float32(peak)


@dataclasses.dataclass(frozen=True)
class Poly(Schedule):
  """peak * (1 - epoch/epochs)^power, stepped once per epoch, never below floor (ReCo, `PolyLR`).

  Past the last epoch it stays at the floor. The epochs left are counted in whole numbers: towards
  the end of a long run, 1 - epoch/epochs in float32 is off by a percent.
  """

  steps_per_epoch: Steps = 200
  power: NotNegative = 0.9
  floor: NotNegative = 1e-6

  def curve(self, peak: float, steps: int, count: jax.Array) -> jax.Array:
    epochs = -(-steps // self.steps_per_epoch)
    left = jnp.maximum(epochs - count // self.steps_per_epoch, 0)
    return jnp.maximum(peak * (left / epochs) ** self.power, self.floor)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
  """From the peak to floor along half a cosine (PyTorch's `CosineAnnealingLR`)."""

  floor: NotNegative = 0.0

  def curve(self, peak: float, steps: int, count: jax.Array) -> jax.Array:
    return self.floor + (peak - self.floor) * _half_cosine(count / steps)


@dataclasses.dataclass(frozen=True)
class OneCycle(Schedule):
  """Up to the peak and down, each along half a cosine (PyTorch's `OneCycleLR`, C3-SemiSeg's).

  From peak / divide to the peak at step int(rise * steps), counted from 1, and down to
  peak / divide / divide_end at the last one. momenta: (low, high) of the momentum (Adam: b1), which
  goes from high to low and back; () leaves it alone.
  """

  rise: Share = 0.3
  divide: Positive = 25.0
  divide_end: Positive = 1e4
  momenta: Momenta | tuple[()] = (0.85, 0.95)

  def curve(self, peak: float, steps: int, count: jax.Array) -> jax.Array:
    start = peak / self.divide
    return self._cycle(start, peak, start / self.divide_end, steps, count)

  def momentum(self, steps: int, step: jax.Array) -> jax.Array:
    """Of a step of a run of `steps`."""
    low, high = self.momenta
    return self._cycle(high, low, high, steps, jnp.maximum(step + self.first, 0))

  def _cycle(self, start, middle, end, steps, count):
    turn, last = int(self.rise * steps) - 1 + self.first, steps - 1 + self.first
    up = middle + (start - middle) * _half_cosine(count / max(turn, 1))
    down = end + (middle - end) * _half_cosine((count - turn) / max(last - turn, 1))
    return jnp.where(count < turn, up, down)


SCHEDULES = {"constant": Schedule, "cosine": Cosine, "one_cycle": OneCycle, "poly": Poly}


def cosine_decay(step: jax.Array, steps: int, warmup_rate: float) -> jax.Array:
  """A teacher's momentum at each step of a run of `steps`, counted from 0 (Alonso et al. 2021).

  From 0.995 to 1 along a cosine; in the warm-up 1 - 1 / (warmup_rate step + 1), so 0 at the first
  update, which copies the student.
  """
  cosine = 1 - 0.005 * (jnp.cos(jnp.pi * step / steps) + 1) / 2
  return jnp.minimum(1 - 1 / (warmup_rate * step + 1), cosine)


def ramp_up(step: jax.Array, ramp_steps: float) -> jax.Array:
  """exp(-5 (1 - step/ramp_steps)^2), 1 from ramp_steps on."""
  return jnp.exp(-5 * jnp.square(1 - _share(step, ramp_steps)))


def log_ramp_up(step: jax.Array, ramp_steps: float) -> jax.Array:
  """1 - exp(-5 step/ramp_steps), the same from ramp_steps on; 1 without steps (C3-SemiSeg)."""
  return -jnp.expm1(-5 * _share(step, ramp_steps)) if ramp_steps else jnp.ones(jnp.shape(step))


def _share(step: jax.Array, ramp_steps: float) -> jax.Array:
  """Of the ramp that is over, 0 to 1."""
  if not ramp_steps:
    return jnp.ones(jnp.shape(step))
  return jnp.clip(jnp.asarray(step, jnp.float32) / ramp_steps, 0, 1)


def _half_cosine(part: jax.Array) -> jax.Array:
  """(1 + cos(pi part)) / 2, from 1 to 0, and 0 past part 1; accurate near 0 too."""
  return jnp.cos(jnp.pi / 2 * jnp.minimum(part, 1)) ** 2
