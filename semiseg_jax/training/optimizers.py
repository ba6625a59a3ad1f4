"""Optimisers by name, with schedules and parameter groups, all from optax but for one rule of
PyTorch's: a tensor is left alone until its first gradient."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import optax

from semiseg_jax import fields
from semiseg_jax.schedules import SCHEDULES, Schedule
from semiseg_jax.values import Count, Momentum, NotNegative, Positive, check

Tree = Any


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """What every optimiser has; without groups it treats all parameters alike, BatchNorm's too.

  groups: tuples (pattern, factor, decay) or (pattern, factor, decay, times). A parameter is in the
  first group whose pattern `re.search` finds in its path below the network's name, such as
  "trunk.layer1.0.conv1.kernel": factor multiplies its learning rate, decay is its weight decay
  (None: that of all), times is how often it is moved at each step, by the same gradient.
  Raises ValueError for anything else in groups.
  """

  learning_rate: NotNegative = 1e-3
  weight_decay: NotNegative = 0.0
  groups: tuple = ()
  decoupled = False  # whether the decay is added behind the moments, not to the gradient
  batch_power = 0.5  # of a batch's size, with which the learning rate grows

  def __post_init__(self):
    for group in self.groups:
      kinds = (str, Positive, NotNegative | None, Count)
      try:
        for value, kind in zip(group, kinds[: max(len(group), 3)], strict=True):
          check("", value, kind)
        re.compile(group[0])
      except (TypeError, ValueError, re.error):
        raise ValueError(
          f"config.optimizer.groups has {group!r}: not (pattern, factor above 0, decay or None) "
          "with or without a number of times"
        ) from None


@dataclasses.dataclass(frozen=True)
class SGD(Optimizer):
  """As `torch.optim.SGD`, the decay added to the gradient; defaults are ReCo's."""

  learning_rate: NotNegative = 2.5e-3
  weight_decay: NotNegative = 5e-4
  momentum: Momentum = 0.9
  nesterov: bool = True
  batch_power = 1.0

  def moments(self, momentum: jax.Array | None) -> optax.GradientTransformation:
    return optax.trace(self.momentum if momentum is None else momentum, self.nesterov)


@dataclasses.dataclass(frozen=True)
class Adam(Optimizer):
  """As `torch.optim.Adam`, the decay added to the gradient."""

  b1: Momentum = 0.9
  b2: Momentum = 0.999
  eps: Positive = 1e-8

  def moments(self, momentum: jax.Array | None) -> optax.GradientTransformation:
    return optax.scale_by_adam(self.b1 if momentum is None else momentum, self.b2, self.eps)


@dataclasses.dataclass(frozen=True)
class AdamW(Adam):
  """As `torch.optim.AdamW`."""

  weight_decay: NotNegative = 0.01
  decoupled = True


OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}


def make_optimizer(
  config: Mapping[str, Any], steps: int, networks: Mapping[str, Any]
) -> optax.GradientTransformation:
  """The optimiser of parameters {network: {module: nested dicts of arrays}}.

  config: the `optimizer` section; steps: the length of the run. networks: by name, each with
  `frozen`, paths below its name of parameters that are never trained, `late`, its modules that may
  get their first gradient late, and `per_class`, those of them with one tensor per class along
  their arrays' leading axis.

  Raises ValueError as `make_settings` does; `init` raises it for a group without parameters.
  """
  schedule, settings = make_settings(config)
  groups = (*settings.groups, ("", 1.0, None))
  times = [number for _, _, _, number in ((*group, 1)[:4] for group in groups)]

  def group(names):
    dotted = ".".join(map(str, names[1:]))
    return next(i for i, (pattern, *_) in enumerate(groups) if re.search(pattern, dotted))

  def at_step(learning_rate, momentum):
    decays = [settings.weight_decay if decay is None else decay for _, _, decay, *_ in groups]
    rates = [learning_rate * factor for _, factor, *_ in groups]
    decay = _by_label(group, dict(enumerate(map(optax.add_decayed_weights, decays))))
    scale = _by_label(group, dict(enumerate(map(optax.scale_by_learning_rate, rates))))
    parts = (decay, settings.moments(momentum))
    direction = optax.chain(*(parts[::-1] if settings.decoupled else parts))
    once = optax.chain(each_module(direction, networks), scale)
    if set(times) == {1}:
      return once
    return _by_label(lambda names: times[group(names)], {n: repeated(once, n) for n in set(times)})

  optimizer = optax.inject_hyperparams(at_step, hyperparam_dtype=jnp.float32)(
    partial(schedule.rate, settings.learning_rate, steps),
    partial(schedule.momentum, steps) if schedule.momenta else None,
  )

  def init(params):
    found = set(jax.tree.leaves(_labels(group, params)))
    if unused := [groups[i][0] for i in range(len(settings.groups)) if i not in found]:
      raise ValueError(f"config.optimizer.groups: no parameter is in the group of {unused}")
    return optimizer.init(params)

  return optax.GradientTransformation(init, optimizer.update)


def make_settings(config: Mapping[str, Any]) -> tuple[Schedule, Optimizer]:
  """What the `optimizer` section describes.

  Raises ValueError for an unknown name or key, naming the nearest, and for values that are not
  allowed.
  """
  values = dict(config)
  schedule = fields.make_chosen(SCHEDULES, "config.optimizer.schedule", values.pop("schedule"))
  return schedule, fields.make_chosen(OPTIMIZERS, "config.optimizer", values)


def each_module(
  inner: optax.GradientTransformation, networks: Mapping[str, Any]
) -> optax.GradientTransformation:
  """`inner` for what is always trained and, each from its first gradient on, for each late module
  of each network, or each class of it. What is frozen is not moved and has no state.
  """
  module = from_first_gradient(inner)
  classes = optax.GradientTransformation(jax.vmap(module.init), jax.vmap(module.update))

  def label(names):
    network = networks[names[0]]
    if names[1:] in network.frozen:
      return "frozen"
    return ".".join(names[:2]) if names[1] in network.late else "always"

  def over(tree):
    transforms = {"frozen": optax.set_to_zero(), "always": inner}
    for key in set(jax.tree.leaves(_labels(label, tree))) - transforms.keys():
      network, name = key.split(".")
      transforms[key] = classes if name in networks[network].per_class else module
    return _by_label(label, transforms)

  return optax.GradientTransformation(
    lambda params: over(params).init(params),
    lambda grads, state, params: over(grads).update(grads, state, params),
  )


def repeated(inner: optax.GradientTransformation, times: int) -> optax.GradientTransformation:
  """`inner` so many times by the same gradient, as PyTorch moves a tensor that is listed again."""

  def update(grads, state, params):
    total, moved = jax.tree.map(jnp.zeros_like, grads), params
    for _ in range(times):
      updates, state = inner.update(grads, state, moved)
      total = jax.tree.map(jnp.add, total, updates)
      moved = optax.apply_updates(params, total)
    return total, state

  return optax.GradientTransformation(inner.init, update)


def from_first_gradient(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """`inner`, which begins, decay and all, at the first step with a gradient that is not 0.

  Its state: whether there has been one, and that of `inner`.
  """

  def init(params):
    return jnp.zeros((), bool), inner.init(params)

  def update(grads, state, params):
    touched = reduce(jnp.logical_or, [jnp.any(g != 0) for g in jax.tree.leaves(grads)], state[0])
    begun = inner.update(grads, state[1], params)
    updates, kept = jax.tree.map(partial(jnp.where, touched), begun, (grads, state[1]))
    return updates, (touched, kept)

  return optax.GradientTransformation(init, update)


def _labels(label: Callable, tree: Tree) -> Tree:
  return jax.tree.map_with_path(lambda path, _: label(tuple(key.key for key in path)), tree)


def _by_label(label: Callable, transforms: dict) -> optax.GradientTransformation:
  """Each leaf by the transform that the label of its path names."""
  return optax.partition(transforms, partial(_labels, label))
