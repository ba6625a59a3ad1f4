"""What a family of PyTorch weights is: how its state dict names our layers, and what it says."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from semiseg_jax.models.densenet import DENSENETS
from semiseg_jax.models.resnet import BACKBONES, Bottleneck

Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Family:
  """A layout of state dicts.

  rules: (pattern, template) pairs: what our module path begins with, and what stands there in the
  state dict; the first match counts, a path without one has no counterpart. "{c}" in a template is
  the class, for modules that hold the arrays of all classes. signature: keys by which the family is
  known; unless: keys that it never has; tells: what else must hold of the tensors. describe:
  (shapes of the tensors, what else the file holds) -> what `networks.build` takes; a value of None
  could not be known. counters: whether BatchNorms have `num_batches_tracked`. of_trunk: whether a
  file holds the trunk alone; the way back then leaves out the rest. lacks: what the paths of ours
  begin with that no file has, whose arrays stay fresh. apart: what the keys
  begin with, here, of tensors that are in a file of their own (convert/apart.py). copies: (layer,
  the names under which it is in a state dict once more), for layers that the original uses in
  several places. adapt: makes a file's tensors into those that the rules name; restore: the way
  back.
  """

  name: str
  title: str
  rules: tuple[tuple[str, str], ...]
  signature: tuple[str, ...]
  describe: Callable[[Shapes, Mapping[str, Any]], dict[str, Any]]
  unless: tuple[str, ...] = ()
  tells: Callable[[Mapping[str, Any]], bool] = lambda tensors: True
  counters: bool = True
  of_trunk: bool = False
  lacks: tuple[str, ...] = ()
  apart: str = ""
  copies: tuple[tuple[str, tuple[str, ...]], ...] = ()
  adapt: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
  restore: Callable[[Mapping[str, Any]], dict[str, Any]] = dict

  def recognises(self, tensors: Mapping[str, Any]) -> bool:
    others = any(key in tensors for key in self.unless)
    return self.is_signed(tensors) and not others and self.tells(tensors)

  def is_signed(self, tensors: Mapping[str, Any]) -> bool:
    return all(key in tensors for key in self.signature)

  def is_lacking(self, path: str) -> bool:
    """Whether no file has the array at a path of ours."""
    return any(re.match(pattern, path) for pattern in self.lacks)

  def copies_of(self, key: str) -> list[str]:
    """Under which keys a tensor is in a state dict once more."""
    found = [(layer, names) for layer, names in self.copies if key.startswith(f"{layer}.")]
    return [name + key.removeprefix(layer) for layer, names in found for name in names]

  def layer(self, module: str) -> str | None:
    """The state dict's name for a module path such as "trunk.layer1.0.conv1"; None without one."""
    for pattern, template in self.rules:
      if match := re.match(pattern, module):
        return match.expand(template) + module[match.end() :]
    return None


def numbers(shapes: Shapes, pattern: str) -> set[str]:
  """What the keys that begin with a pattern have in its group."""
  return {match[1] for key in shapes if (match := re.match(pattern, key))}


def noted(extra: Mapping[str, Any], *keys: str) -> Any:
  """The plain value that a file has beside its tensors under a key, and keys inside that; None
  without one."""
  found: Any = extra
  for key in keys:
    found = found.get(key) if isinstance(found, Mapping) else None
  return found if isinstance(found, str | int | float) else None


def stem_rules(prefix: str, stem: str) -> tuple[tuple[str, str], ...]:
  """Rules of a ResNet whose stem is a Sequential: convolution 0, BatchNorm 1."""
  return (
    (r"trunk\.conv1\b", f"{prefix}{stem}.0"),
    (r"trunk\.bn1\b", f"{prefix}{stem}.1"),
    (r"trunk\.layer", f"{prefix}layer"),
  )


def trunk(shapes: Shapes, prefix: str, stem: str = "conv1") -> dict[str, Any]:
  """The trunk whose keys begin with prefix; ValueError for one that is no ResNet of ours.

  stem: the name of its first convolution, or of the three that stand for it.
  """
  depths = []
  for stage in range(1, 5):
    depths.append(len(numbers(shapes, rf"{re.escape(prefix)}layer{stage}\.(\d+)\.")))
  has_bottlenecks = f"{prefix}layer1.0.conv3.weight" in shapes
  for name, (block, known) in BACKBONES.items():
    if known == tuple(depths) and (block is Bottleneck) == has_bottlenecks:
      is_deep = f"{prefix}{stem}.0.weight" in shapes
      width = shapes[f"{prefix}{stem}{'.0' * is_deep}.weight"][0]
      return {"trunk": {"name": name, "width": width, "deep_stem": is_deep}}
  kind = "bottlenecks" if has_bottlenecks else "basic blocks"
  raise ValueError(f"a trunk with {depths} {kind} is none of {', '.join(BACKBONES)}")


def dense_trunk(shapes: Shapes, block: str, stem: str) -> dict[str, Any]:
  """The same for a DenseNet; block: what its blocks' keys begin with, before their numbers."""
  depths = tuple(
    len(numbers(shapes, rf"{re.escape(block)}{i}\.denselayer(\d+)\.")) for i in range(1, 5)
  )
  for name, known in DENSENETS.items():
    if known == depths:
      return {"trunk": {"name": name, "width": shapes[f"{stem}.weight"][0]}}
  raise ValueError(f"a trunk with blocks of {depths} layers is none of {', '.join(DENSENETS)}")
