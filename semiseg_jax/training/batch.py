"""Another batch: what `:batch=N` behind a config's file does (docs/scaling.md)."""

import dataclasses
import math
import typing
from fractions import Fraction

from ml_collections import ConfigDict

from semiseg_jax.fields import Steps
from semiseg_jax.methods import METHODS, make_method
from semiseg_jax.runtime.mesh import listed
from semiseg_jax.schedules import SCHEDULES
from semiseg_jax.training.optimizers import OPTIMIZERS

_TRAINING = (
  "steps", "reload_best_after", "stop_after", "refresh_batch_stats", "checkpoint_every",
)  # fmt: skip


def scale_batch(config: ConfigDict, labeled: int) -> None:
  """Makes the global batch one of `labeled` labelled images, and all that depends on it follow.

  The other streams' batches are multiplied by the same factor, the learning rate by that factor to
  the optimiser's `batch_power`; what is counted in steps is divided by it. Raises ValueError if a
  batch that the run uses does not come out whole.
  """
  data, batches = config.data, batches_of(config)
  factor = Fraction(labeled, data.labeled_batch)
  if labeled < 1 or any((factor * rows).denominator > 1 for rows in batches.values()):
    raise ValueError(
      f"batch={labeled}: the config's {listed(batches)} images keep their proportion at multiples "
      f"of {data.labeled_batch // math.gcd(*batches.values())}"
    )
  for section, key in ((data, "labeled_batch"), (data, "unlabeled_batch"), (data.domain, "batch")):
    section[key] = max(1, round(section[key] * factor))
  for section, key in _counted_in_steps(config):
    if section[key]:
      section[key] = max(1, round(section[key] / factor))
  config.optimizer.learning_rate *= float(factor) ** OPTIMIZERS[config.optimizer.name].batch_power


def batches_of(config: ConfigDict) -> dict[str, int]:
  """Rows of the global batch, by the streams that the run has."""
  data = config.data
  rows = {name: data[f"{name}_batch"] for name in make_method(config.method).streams}
  return rows | ({"domain": data.domain.batch} if data.domain.name else {})


def _counted_in_steps(config: ConfigDict) -> list[tuple[ConfigDict, str]]:
  """Sections and keys; a method and a schedule say of their fields which."""
  found = [(config.training, key) for key in _TRAINING] + [(config.evaluation, "every")]
  for section, table in ((config.method, METHODS), (config.optimizer.schedule, SCHEDULES)):
    fields = dataclasses.fields(table[section.name])
    types = {field.name: (field.type, *typing.get_args(field.type)) for field in fields}
    found += [(section, name) for name, kinds in types.items() if Steps in kinds]
  return found
