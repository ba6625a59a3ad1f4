"""What a config chooses by name, and the keys that come with each choice."""

from typing import Any

from ml_collections import ConfigDict

from semiseg_jax import fields
from semiseg_jax.methods import METHODS
from semiseg_jax.networks import NETWORKS, TRUNKS
from semiseg_jax.schedules import SCHEDULES
from semiseg_jax.training.optimizers import OPTIMIZERS
from semiseg_jax.transforms import EVALUATION, TRAINING

CHOICES = {
  "method": METHODS,
  "model": NETWORKS,
  "model.trunk": TRUNKS,
  "optimizer": OPTIMIZERS,
  "optimizer.schedule": SCHEDULES,
  "data.labeled_transform": TRAINING,
  "data.unlabeled_transform": TRAINING,
  "data.domain.transform": TRAINING,
  "evaluation.transform": EVALUATION,
  "rounds.labels.transform": EVALUATION,
}
_ELSEWHERE = ("name", "crop")  # fields that are no keys of a section: crop is config.data.crop


def choose(config: ConfigDict, path: str, name: str, **values: Any) -> None:
  """Names what stands at a path of CHOICES: its keys replace those of what stood there before.

  Keys have that choice's defaults, or the values given. A choice inside it stays as it is, but for
  a trunk that a network does not stand on. Raises ValueError for an unknown name.
  """
  section, table = config, CHOICES[path]
  for part in path.split("."):
    section = section[part]
  kind = fields.choose(f"config.{path}.name", name, table)
  slots = (slot.rpartition(".") for slot in CHOICES)
  elsewhere = {*_ELSEWHERE, *(key for above, _, key in slots if above == path)}
  with section.unlocked():
    if "name" in section:
      for key in fields.section(table[section.name], elsewhere):
        del section[key]
    section.update({"name": name, **fields.section(kind, elsewhere)})
  section.update(values)
  if path == "model" and not issubclass(TRUNKS[section.trunk.name], kind.TRUNKS):
    choose(config, "model.trunk", kind().trunk.name)
