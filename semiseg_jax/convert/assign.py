"""Between a PyTorch state dict and our trees, both ways, by a family's table.

Kernels are HWIO here and OIHW there, linear ones [I,O] and [O,I]; scale, mean and var are weight,
running_mean and running_var there. Nothing is computed, so both ways are exact.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from semiseg_jax.convert.family import Family
from semiseg_jax.models.network import Variables

_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
  **{name: name for name in ("gamma", "cls_token", "pos_embed", "mask_token", "register_tokens")},
}
_COUNTER = "num_batches_tracked"
# Why tensors are left: only the way back needs it; so does a layer's second name, if it says the
# same; the network was asked to have other classes.
A_COUNTER, A_COPY, OTHER_CLASSES = "a counter", "a copy", "of another number of classes"
CLASS_MODULES = (
  "classifier", "aux_classifier", "selectors", "memory_selectors", "classifier_upsampling",
  "adj_pool3", "adj_pool4", "up_output", "up_pool4_out", "up_final",
  *(f"{part}{i}" for part in ("gcn", "br", "decon") for i in range(1, 10)),
)  # fmt: skip


class Slot(NamedTuple):
  """Where a tensor lies: a leaf of `Variables`, and its class where the leaf holds all classes'."""

  path: tuple[str, ...]
  of_class: int | None

  def __str__(self) -> str:
    return ".".join(self.path[1:]) + ("" if self.of_class is None else f"[{self.of_class}]")


class Report(NamedTuple):
  """What became of every tensor and every leaf.

  taken: (key, our path, shape); left: (key, shape, why) of tensors without use; fresh: (our path,
  shape) of leaves that keep what they had.
  """

  taken: list[tuple[str, str, tuple[int, ...]]]
  left: list[tuple[str, tuple[int, ...], str]]
  fresh: list[tuple[str, tuple[int, ...]]]


def leaves_of(variables: Variables) -> dict[tuple[str, ...], np.ndarray]:
  """Every array by its path, which begins with params or batch_stats."""
  return flatten_dict(jax.tree.map(np.asarray, variables._asdict()))


def slots_of(family: Family, variables: Variables) -> dict[str, Slot]:
  """The key of every tensor that the network has in this family, and where it lies."""
  slots = {}
  for path, leaf in leaves_of(variables).items():
    layer = family.layer(".".join(path[1:-1]))
    if layer is None:
      continue
    for c in range(leaf.shape[0]) if "{c}" in layer else (None,):
      key = f"{layer.replace('{c}', str(c))}.{_LEAVES[path[-1]]}".removeprefix(".")
      assert key not in slots, f"{family.name} names two leaves {key}"
      slots[key] = Slot(path, c)
  return slots


def assign(
  family: Family,
  tensors: Mapping[str, np.ndarray],
  variables: Variables,
  *,
  reinit_classifier: bool = False,
) -> tuple[Variables, Report]:
  """The network with the tensors in their places, and what became of all.

  A leaf without a tensor keeps its value. reinit_classifier: so do the leaves whose size depends
  on the number of classes, if the tensors are of another. Raises ValueError naming the tensors of
  another shape, and if no tensor has a place.
  """
  slots, leaves = slots_of(family, variables), leaves_of(variables)
  taken, whys = _fitting(slots, leaves, tensors, reinit_classifier)
  if not taken:
    raise ValueError(f"no tensor of this {family.name} file has a place in the network")
  covered = {slots[key].path for key in taken}
  if lacking := [key for key, slot in slots.items() if slot.path in covered and key not in taken]:
    raise ValueError(f"the file lacks {lacking[0]}, though it has it for other classes")
  filled = leaves | {path: np.empty_like(leaves[path]) for path in covered}
  for key in taken:
    tensor_at(filled, slots[key])[...] = tensors[key]
  copies = {copy: key for key in taken for copy in family.copies_of(key)}

  def why_unknown(key: str) -> str:
    if key.endswith(_COUNTER):
      return A_COUNTER
    if key not in copies:
      return "no such layer here"
    is_same = np.array_equal(tensors[key], tensors[copies[key]])
    return A_COPY if is_same else f"one layer with {copies[key]} here, which is another there"

  report = Report(
    [(key, str(slots[key]), tensors[key].shape) for key in taken],
    [(k, x.shape, whys.get(k) or why_unknown(k)) for k, x in tensors.items() if k not in taken],
    [(str(Slot(path, None)), x.shape) for path, x in leaves.items() if path not in covered],
  )
  return Variables(**{"batch_stats": {}, **unflatten_dict(filled)}), report


def tensors_of(
  family: Family, variables: Variables, counters: Mapping[str, int] | None = None
) -> dict[str, np.ndarray]:
  """The state dict of a network, as the family's own model loads it.

  counters: `num_batches_tracked` by key, 0 without. Raises ValueError for a network with parts that
  the family doesn't have, but for what is not the trunk if it is a family of trunks.
  """
  slots, leaves = slots_of(family, variables), leaves_of(variables)
  covered = {slot.path for slot in slots.values()}
  modules = {path[1] for path in leaves if path not in covered}
  if modules and not (family.of_trunk and "trunk" not in modules):
    over = ", ".join(sorted(modules))
    raise ValueError(f"family {family.name} has no place for {over}: --family=semiseg_jax has")
  tensors = {}
  for key, slot in slots.items():
    tensors[key] = tensor_at(leaves, slot)
    if family.counters and key.endswith(".running_var"):
      counter = key.removesuffix("running_var") + _COUNTER
      tensors[counter] = np.asarray((counters or {}).get(counter, 0), np.int64)
  copies = {copy: tensors[key] for key in tensors for copy in family.copies_of(key)}
  return family.restore(tensors | copies)


def tensor_at(leaves: Mapping[tuple[str, ...], np.ndarray], slot: Slot) -> np.ndarray:
  """What a slot holds, as a state dict has it; a view."""
  array = leaves[slot.path] if slot.of_class is None else leaves[slot.path][slot.of_class, ...]
  if slot.path[-1] != "kernel":
    return array
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def counters_of(tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
  """How many batches each BatchNorm had averaged; only the way back needs it."""
  return {key: int(x) for key, x in tensors.items() if key.endswith(f".{_COUNTER}") and int(x)}


def _fitting(
  slots: Mapping[str, Slot],
  leaves: Mapping[tuple[str, ...], np.ndarray],
  tensors: Mapping[str, np.ndarray],
  reinit_classifier: bool,
) -> tuple[dict[str, None], dict[str, str]]:
  """The keys of the tensors that fit, in order, and why others with a place don't."""
  shapes = {k: tensor_at(leaves, slot).shape for k, slot in slots.items() if k in tensors}
  layers = {key: slots[key].path[1:-1] for key in shapes}
  # a linear layer is no convolution, though their biases look alike
  others = {layers[key] for key, shape in shapes.items() if len(shape) != tensors[key].ndim}
  whys = {key: "another kind of layer here" for key in shapes if layers[key] in others}
  wrong = [k for k, shape in shapes.items() if k not in whys and shape != tensors[k].shape]
  if wrong:
    only_classes = all(slots[key].path[1] in CLASS_MODULES for key in wrong)
    if not (reinit_classifier and only_classes):
      raise ValueError(_mismatch(wrong, tensors, shapes, only_classes))
    of_classes = {*wrong, *(key for key in shapes if slots[key].of_class is not None)}
    whys |= dict.fromkeys(of_classes, OTHER_CLASSES)
  return dict.fromkeys(key for key in shapes if key not in whys), whys


def _mismatch(wrong: list[str], tensors, shapes, only_classes: bool) -> str:
  lines = [f"{key} is {tensors[key].shape} there and {shapes[key]} here" for key in wrong[:4]]
  more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
  hint = (
    "is it of another number of classes? reinit_classifier leaves these out"
    if only_classes
    else "they are of another network"
  )
  return f"{'; '.join(lines)}{more}: {hint}"
