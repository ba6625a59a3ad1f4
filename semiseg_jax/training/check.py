"""What can be known of a config to be wrong before anything is read, prepared or compiled."""

from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from semiseg_jax import fields
from semiseg_jax.contract import Method
from semiseg_jax.convert.checkpoint import description
from semiseg_jax.evaluation.decide import read_rule
from semiseg_jax.input.build import colors
from semiseg_jax.input.sources import DatasetInfo
from semiseg_jax.methods import make_method
from semiseg_jax.models.normalization import NORMALIZATIONS
from semiseg_jax.networks import NETWORKS
from semiseg_jax.training.batch import batches_of
from semiseg_jax.training.choices import CHOICES
from semiseg_jax.training.optimizers import make_settings
from semiseg_jax.training.sections import SECTIONS, Model, Whole
from semiseg_jax.transforms import EVALUATION, TRAINING, make_transform


def check_values(config: ConfigDict) -> None:
  """ValueError for the first value that its key does not take, whatever the others are."""
  _check_section(Whole, "config", config)
  for path, kind in SECTIONS.items():
    _check_section(kind, f"config.{path}", config_path.get_value(path, config))
  data, normalization = config.data, config.model.normalization
  if data.palette:
    colors(data.palette)
  if normalization != "auto":
    fields.choose("config.model.normalization", normalization, NORMALIZATIONS)
  read_rule(config.evaluation.decide)
  description(config.model)
  make_settings(config.optimizer)
  for path, table in CHOICES.items():
    if table in (TRAINING, EVALUATION):
      values = dict(config_path.get_value(path, config))
      kind = fields.choose(f"config.{path}.name", name := values.pop("name"), table)
      fields.check_all(kind, f"config.{path}", name, values)
  for stream in batches_of(config):
    path = "domain.transform" if stream == "domain" else f"{stream}_transform"
    make_transform(config_path.get_value(path, data), data.crop, f"config.data.{path}")


def _check_section(kind: type, name: str, section: ConfigDict) -> None:
  """Of what is neither a section of its own nor, in config.model, the network's."""
  chosen = fields.choose(f"{name}.name", section.name, NETWORKS) if kind is Model else None
  elsewhere = {"name", *fields.section(chosen)} if chosen else ()
  own = {
    key: value
    for key, value in section.items()
    if not isinstance(value, ConfigDict) and key not in elsewhere
  }
  fields.make(kind, name, name, own)


def check(config: ConfigDict) -> Method:
  """The config's method; ValueError also for values that contradict each other."""
  check_values(config)
  method = make_method(config.method)
  if NETWORKS[config.model.name].OF_IMAGES:
    raise ValueError(
      f"config.model.name={config.model.name!r} classifies whole images: take a DeepLab, "
      "or another network, whose trunk can start from its weights by config.model.init_from"
    )
  method.check(config)
  if None not in (config.training.stop_after, config.training.reload_best_after):
    raise ValueError(
      "config.training.stop_after and reload_best_after both wait for a better score: set one"
    )
  if config.evaluation.network is not None:
    fields.require("config.evaluation.network", config.evaluation.network, method.networks)
  return method


def check_size(config: ConfigDict, info: DatasetInfo) -> None:
  """ValueError unless every validation image fits into the size that it will be padded to."""
  if config.evaluation.own_size:
    return
  size = config.evaluation.size
  if size is None and info.size is None:
    raise ValueError(f"config.evaluation.size must be given: {info.name} doesn't say its own")
  if None not in (size, info.size) and (info.size[0] > size[0] or info.size[1] > size[1]):
    raise ValueError(
      f"the evaluation size {size[0]}x{size[1]} (config.evaluation.size, height x width) is "
      f"smaller than the images of {info.name}, {info.size[0]}x{info.size[1]}"
    )
