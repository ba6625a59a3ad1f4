"""Another batch: what `:batch=N` behind a config's file does (docs/scaling.md)."""

import dataclasses
import math
from fractions import Fraction

from ml_collections import ConfigDict

from semiseg_jax.fields import Steps
from semiseg_jax.methods import METHODS, make_method
from semiseg_jax.schedules import SCHEDULES
from semiseg_jax.training.optimizers import OPTIMIZERS

_TRAINING = ("steps", "reload_best_after", "refresh_batch_stats", "checkpoint_every")


def scale_batch(config: ConfigDict, labeled: int) -> None:
  """Makes the global batch one of `labeled` labelled images, and all that depends on it follow.

  The other streams' batches are multiplied by the same factor, the learning rate by that factor to
  the optimiser's `batch_power`; what is counted in steps is divided by it. Raises ValueError if a
  batch that the run uses does not come out whole.
  """
  data, factor = config.data, Fraction(labeled, config.data.labeled_batch)
  batches = {name: (data, f"{name}_batch") for name in ("labeled", "unlabeled")}
  batches["domain"] = (data.domain, "batch")
  used = [*make_method(config.method).streams, *(["domain"] if data.domain.name else [])]
  rows = [section[key] for section, key in map(batches.get, used)]
  if labeled < 1 or any((factor * count).denominator > 1 for count in rows):
    raise ValueError(
      f"batch={labeled}: the config's {' + '.join(map(str, rows))} images ({', '.join(used)}) keep "
      f"their proportion at multiples of {data.labeled_batch // math.gcd(*rows)}"
    )
  for section, key in batches.values():
    section[key] = max(1, round(section[key] * factor))
  for section, key in _counted_in_steps(config):
    if section[key]:
      section[key] = max(1, round(section[key] / factor))
  config.optimizer.learning_rate *= float(factor) ** OPTIMIZERS[config.optimizer.name].batch_power


def _counted_in_steps(config: ConfigDict) -> list[tuple[ConfigDict, str]]:
  """Sections and keys; a method and a schedule say of their fields which."""
  found = [(config.training, key) for key in _TRAINING] + [(config.evaluation, "every")]
  for section, table in ((config.method, METHODS), (config.optimizer.schedule, SCHEDULES)):
    fields = dataclasses.fields(table[section.name])
    found += [(section, field.name) for field in fields if field.type == Steps]
  return found
