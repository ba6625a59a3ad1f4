"""Weights of a file as a network of ours."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from semiseg_jax import networks
from semiseg_jax.convert import apart, families, files, hub, wrappers
from semiseg_jax.convert.assign import A_COPY, A_COUNTER, Report, assign, counters_of
from semiseg_jax.convert.family import Family
from semiseg_jax.input.palettes import make_palette
from semiseg_jax.models.network import Network, Variables
from semiseg_jax.runtime.errors import first_line

_SHOWN = 4  # names in a line


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


def read_weights(
  reference: str, family: str | None = None, which: str | None = None, **known: Any
) -> Weights:
  """Reads a file of PyTorch weights, on this machine or "hf://ORG/REPO/FILE".

  family: its layout, where the keys don't tell. which: of several networks in it, see
  `wrappers.choose`. known: of the model, what the file doesn't say or is to be taken otherwise,
  such as name or normalization. Raises FileNotFoundError, and ValueError for a file that is
  refused, damaged, or of no family.
  """
  path = hub.fetch(reference)
  content, own = files.read(path)
  with _naming(reference):
    layout, found = _networks(content, family)
    place = wrappers.choose(found, which)
    network = found[place]
    layout = layout or families.detect(network.tensors)
    tensors = adapted(layout, {**network.tensors, **apart.read(layout, path)})
    model = describe(layout, tensors, network.beside | {"about": own})
  check_finite(tensors, reference)
  model |= {key: value for key, value in known.items() if value is not None}
  with open(path, "rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
  origin = {"file": reference, "family": layout.name, "sha256": digest, "network": place}
  origin |= {"others": [x for x in found if x != place], "beside": sorted(network.beside)}
  return Weights(
    tensors, layout, model, {**own, "counters": counters_of(tensors), "origin": origin}
  )


@contextlib.contextmanager
def _naming(reference: str) -> Iterator[None]:
  """Names the file in what is wrong with what is in it."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f"{reference}: {error}") from error


def check_finite(tensors: Mapping[str, np.ndarray], reference: str) -> None:
  """Raises ValueError for NaN or infinities, naming where they are."""
  numbers = {k: x for k, x in tensors.items() if np.issubdtype(x.dtype, np.floating)}
  if bad := [key for key, x in numbers.items() if not np.isfinite(x).all()]:
    raise ValueError(
      f"{len(bad)} of {len(tensors)} tensors of {reference} hold NaN or infinity ({some(bad)}): "
      "their training had diverged or the file is damaged; take an earlier or another one"
    )


def some(names: Sequence[str]) -> str:
  """The first of them, and how many more there are."""
  more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
  return ", ".join(names[:_SHOWN]) + more


def _networks(
  content: Mapping[str, Any], family: str | None
) -> tuple[Family | None, dict[str, wrappers.Found]]:
  """The layout that was asked for, and every network in a file; ValueError without any."""
  layout = families.named(family) if family else None
  if found := wrappers.networks_in(content, layout.is_signed if layout else families.is_known):
    return layout, found
  places = [place.tensors for place in wrappers.networks_in(content, bool).values()]
  if not places:
    raise ValueError(f"it holds no state dict, only: {', '.join(list(content)[:8]) or 'nothing'}")
  if layout:
    raise ValueError(f"it has no {layout.signature[0]}: it is not of {layout.title}")
  raise ValueError(families.unknown(max(places, key=len)))


def adapted(family: Family, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """`Family.adapt`; ValueError for tensors that are not all of its state dict."""
  try:
    return family.adapt(tensors)
  except (KeyError, IndexError, ValueError) as error:
    raise ValueError(f"not the whole state dict of {family.title}: {first_line(error)}") from error


def describe(
  family: Family, tensors: Mapping[str, np.ndarray], extra: Mapping[str, Any]
) -> dict[str, Any]:
  """The model that a family's state dict belongs to; ValueError if a key that tells is missing."""
  try:
    return family.describe({key: x.shape for key, x in tensors.items()}, extra)
  except (KeyError, IndexError) as error:
    what = f"{error} is missing" if isinstance(error, KeyError) else "a shape is of no such layer"
    raise ValueError(f"not the whole state dict of {family.title}: {what}") from error


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
  variables, report = fit(weights, variables, model, reinit_classifier=reinit_classifier)
  return Converted(variables, network, model, report)


def fit(
  weights: Weights,
  variables: Variables,
  model: Mapping[str, Any],
  *,
  reinit_classifier: bool = False,
) -> tuple[Variables, Report]:
  """`assign`, for the network of a model.

  Raises ValueError as it does, for a trunk that the file fills in part, and for one whose file has
  more than it takes.
  """
  other = _other_trunk(weights.model.get("trunk"), model.get("trunk"))
  hint = f"; {other}: make them the same, or take another file" if other else ""
  try:
    variables, report = assign(
      weights.family, weights.tensors, variables, reinit_classifier=reinit_classifier
    )
  except ValueError as error:
    raise ValueError(f"{error}{hint}") from error
  of_trunk = lambda paths: [path for path in paths if path.startswith("trunk.")]
  fresh = of_trunk(path for path, _ in report.fresh if not weights.family.is_lacking(path))
  taken = of_trunk(path for _, path, _ in report.taken)
  if fresh and taken:
    raise ValueError(
      f"the file fills the trunk in part: {len(fresh)} of its {len(fresh) + len(taken)} arrays are "
      f"not there ({some(fresh)}){hint or ': it is damaged, or of another trunk'}"
    )
  useless = [key for key, _, why in report.left if why not in (A_COUNTER, A_COPY)]
  if other and useless:
    raise ValueError(
      f"the file has more than the network takes: {len(useless)} tensors without use "
      f"({some(useless)}){hint}"
    )
  return variables, report


def _other_trunk(there: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> str:
  """Where the trunk of a file's description is another than the network's; "" if it is the same."""
  if not there or not here:
    return ""
  there, here = (dataclasses.asdict(networks.make_trunk(x)) for x in (there, here))
  differing = [key for key in there if key != "taps" and there[key] != here.get(key)]
  own = ", ".join(f"{key}={there[key]!r}" for key in differing)
  ours = ", ".join(f"{key}={here.get(key)!r}" for key in differing)
  return f"config.model.trunk has {ours}, the file's has {own}" if differing else ""


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
