"""Another batch: what `:batch=N` behind a config's file does (docs/scaling.md)."""

import functools
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction

from ml_collections import ConfigDict

from semiseg_jax.methods import METHODS, make_method
from semiseg_jax.runtime.mesh import listed
from semiseg_jax.schedules import SCHEDULES
from semiseg_jax.training.optimizers import OPTIMIZERS
from semiseg_jax.training.sections import Evaluation, Training
from semiseg_jax.values import is_in_steps, types_of

_ROWS = ("data.labeled_batch", "data.unlabeled_batch", "data.domain.batch")


def scale_batch(config: ConfigDict, labeled: int) -> None:
  """Makes the global batch one of `labeled` labelled images, and all that depends on it follow.

  The other streams' batches are multiplied by the same factor, the learning rate by that factor to
  the optimiser's `batch_power`; what is counted in steps is divided by it; so in what rounds have
  of their own. Raises ValueError if a batch that the run uses does not come out whole.
  """
  data, batches = config.data, batches_of(config)
  factor = Fraction(labeled, data.labeled_batch)
  if labeled < 1 or any((factor * rows).denominator > 1 for rows in batches.values()):
    raise ValueError(
      f"batch={labeled}: the config's {listed(batches)} images keep their proportion at multiples "
      f"of {data.labeled_batch // math.gcd(*batches.values())}"
    )
  rate = float(factor) ** OPTIMIZERS[config.optimizer.name].batch_power
  in_steps = _counted_in_steps(config)
  for part in (config, config.rounds.first, config.rounds.second):
    for section, key in _set(part, _ROWS):
      section[key] = max(1, round(section[key] * factor))
    for section, key in _set(part, in_steps):
      section[key] = max(1, round(section[key] / factor))
    for section, key in _set(part, ["optimizer.learning_rate"]):
      section[key] *= rate


def batches_of(config: ConfigDict) -> dict[str, int]:
  """Rows of the global batch, by the streams that the run has."""
  data = config.data
  rows = {name: data[f"{name}_batch"] for name in make_method(config.method).streams}
  return rows | ({"domain": data.domain.batch} if data.domain.name else {})


def _counted_in_steps(config: ConfigDict) -> list[str]:
  """Keys; their types say which."""
  kinds = {
    "training": Training,
    "evaluation": Evaluation,
    "method": METHODS[config.method.name],
    "optimizer.schedule": SCHEDULES[config.optimizer.schedule.name],
  }
  every = (
    (path, key, type) for path, kind in kinds.items() for key, type in types_of(kind).items()
  )
  return [f"{path}.{key}" for path, key, type in every if is_in_steps(type)]


def _set(part: ConfigDict, paths: Iterable[str]) -> Iterator[tuple[ConfigDict, str]]:
  """(section, key) of those keys that have a value in a config or a part of one."""
  for path in paths:
    *above, key = path.split(".")
    section = functools.reduce(lambda at, name: at.get(name, ConfigDict()), above, part)
    if section.get(key):
      yield section, key
