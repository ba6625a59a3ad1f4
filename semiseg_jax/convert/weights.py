"""Weights of a file as a network of ours."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from semiseg_jax import networks
from semiseg_jax.convert import apart, families, files, hub
from semiseg_jax.convert.assign import Report, assign, counters_of
from semiseg_jax.convert.family import Family
from semiseg_jax.input.palettes import make_palette
from semiseg_jax.models.network import Network, Variables


class Weights(NamedTuple):
  """A state dict, whose layout it is, and which network it belongs to.

  model: what `networks.build` takes, without defaults. about: what else is known of it:
  class_names, palette, where it came from.
  """

  tensors: dict[str, np.ndarray]
  family: Family
  model: dict[str, Any]
  about: dict[str, Any]


class Converted(NamedTuple):
  """A network with its arrays, as numpy on the host, and what became of the file's tensors.

  model: what `networks.build` took, with every default.
  """

  variables: Variables
  network: Network
  model: dict[str, Any]
  report: Report


def read_weights(reference: str, family: str | None = None, **known: Any) -> Weights:
  """Reads a file of PyTorch weights, on this machine or "hf://ORG/REPO/FILE".

  family: its layout, where the keys don't tell. known: of the model, what the file doesn't say or
  is to be taken otherwise, such as name or normalization. Raises FileNotFoundError, and ValueError
  for a file that is refused, damaged, or of no family.
  """
  path = hub.fetch(reference)
  tensors, extra = files.read(path)
  layout = families.named(family) if family else families.detect(tensors)
  tensors = layout.adapt({**tensors, **apart.read(layout, path)})
  about = dict(extra.get("about", {}))
  model = describe(layout, tensors, extra) | {k: v for k, v in known.items() if v is not None}
  with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  beside = sorted(str(key) for key in extra if key != "about")
  about["counters"] = counters_of(tensors)
  about["origin"] = {"file": reference, "family": layout.name, "sha256": digest, "beside": beside}
  return Weights(tensors, layout, model, about)


def describe(
  family: Family, tensors: Mapping[str, np.ndarray], extra: Mapping[str, Any]
) -> dict[str, Any]:
  """The model that a family's state dict belongs to; ValueError if a key that tells is missing."""
  try:
    return family.describe({key: x.shape for key, x in tensors.items()}, extra)
  except KeyError as error:
    raise ValueError(f"not the whole state dict of {family.title}: {error} is missing") from error


def convert(
  weights: Weights,
  *,
  num_classes: int | None = None,
  reinit_classifier: bool = False,
  dtype: Any = np.float32,
  seed: int = 0,
) -> Converted:
  """The network of these weights, with their arrays.

  num_classes: of the network, if other than theirs; needs reinit_classifier, and the classifier is
  then fresh, from seed. dtype: in which the network computes. Raises ValueError where the file
  leaves open what the network is, and for tensors of other shapes.
  """
  classes = {} if num_classes is None else {"num_classes": num_classes}
  model = weights.model | classes
  for key in ("name", "normalization", "num_classes"):
    if model.get(key) is None:
      flag = "--model" if key == "name" else f"--{key}"
      raise ValueError(
        f"the file doesn't say the network's {key}, and its keys don't tell: give {flag} "
        "to python -m semiseg_jax convert"
      )
  model = completed(model)
  variables, network = networks.build(model, dtype=dtype, seed=seed)
  variables, report = assign(
    weights.family, weights.tensors, variables, reinit_classifier=reinit_classifier
  )
  return Converted(variables, network, model, report)


def named(
  about: Mapping[str, Any],
  num_classes: int,
  class_names: Sequence[str] | None = None,
  palette: Sequence[Sequence[int]] | None = None,
) -> dict[str, Any]:
  """about with class_names and a palette: those given, else its own, else "class 0" and on.

  Raises ValueError for names of another number of classes.
  """
  about = dict(about)
  if class_names or len(about.get("class_names", [])) != num_classes:
    class_names = list(class_names or (f"class {i}" for i in range(num_classes)))
    about |= {"class_names": class_names, "palette": palette}
  if len(about["class_names"]) != num_classes:
    raise ValueError(
      f"{len(about['class_names'])} class names were given for a network of {num_classes} classes"
    )
  about["palette"] = about.get("palette") or make_palette(num_classes).tolist()
  return about


def completed(model: Mapping[str, Any]) -> dict[str, Any]:
  """What `networks.build` takes, with every default filled in; ValueError for what is not there."""
  own = {key: model.get(key, {}) for key in ("num_classes", "heads", "normalization")}
  return networks.complete({k: x for k, x in model.items() if k not in own}) | own
