"""One update of any method, written for one device of the mesh axis "data"."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from semiseg_jax.collectives import DATA_AXIS, as_varying, pmean
from semiseg_jax.contract import Aux, Batch, Method, TrainState, Tree, Variables

Metrics = dict[str, jax.Array]


def make_train_step(
  method: Method,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  accumulate: int = 1,
  separate_passes: bool = False,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """The jitted step over the mesh: (state, global batch) -> (state, metrics); the state is donated.

  With accumulate > 1 every leaf of the batch has that many sub-batches as its leading axis; each
  is a batch of its own (statistics, mixing, drawn pixels), their gradients are averaged into one
  update. With separate_passes each of the method's passes has its backward pass before the next one
  begins: less memory, the same gradient.
  """
  rows = P(DATA_AXIS) if accumulate == 1 else P(None, DATA_AXIS)
  per_device = partial(
    train_step,
    method=method,
    optimizer=optimizer,
    accumulate=accumulate,
    passes=method.passes if separate_passes else (),
  )

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    spec = state_spec(method, state)
    mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(spec, rows), out_specs=(spec, P()))
    return mapped(state, batch)

  return jax.jit(step, donate_argnums=0)


def state_spec(method: Method, state: TrainState) -> TrainState:
  """How the state lies on the mesh: replicated, but for what the method shards of its own."""
  replicated = jax.tree.map(lambda _: P(), state)
  return replicated.replace(method_state=method.state_spec)


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  method: Method,
  optimizer: optax.GradientTransformation,
  accumulate: int = 1,
  passes: tuple[str, ...] = (),
) -> tuple[TrainState, Metrics]:
  """One update. All randomness follows from state.rng, state.step and the images' positions."""
  key = jax.random.fold_in(state.rng, state.step)
  if accumulate == 1:
    state, grads, metrics = gradients(state, batch, key, method, passes)
  else:
    state, grads, metrics = accumulated_gradients(state, batch, key, method, accumulate, passes)
  grads, decayed = (trained_part(tree, state, method) for tree in (grads, state.params))
  updates, opt_state = optimizer.update(grads, state.opt_state, decayed)
  params = optax.apply_updates(state.params, updates)
  teacher = state.teacher
  if method.uses_teacher:
    decay = method.teacher_decay(state)
    teacher = Variables(moving_average(teacher.params, params, decay), teacher.batch_stats)
  metrics["gradient_norm"] = optax.tree.norm(grads)
  state = state.replace(step=state.step + 1, params=params, teacher=teacher, opt_state=opt_state)
  return state, metrics


def trained_part(tree: Tree, state: TrainState, method: Method) -> Tree:
  """A tree like the parameters, with zeros for those that this step does not train.

  Such a parameter gets neither a gradient nor weight decay, so its momentum stays zero, as in
  PyTorch, whose optimisers skip what has no gradient.
  """
  trained, frozen = method.trained(state), set(state.forward.frozen)

  def part(path: tuple, leaf: jax.Array) -> jax.Array:
    names = tuple(entry.key for entry in path)
    if names in frozen:
      return jnp.zeros_like(leaf)
    if (mask := trained.get(names[0])) is None:
      return leaf
    return leaf * mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))

  return jax.tree.map_with_path(part, tree)


def gradients(
  state: TrainState, batch: Batch, key: jax.Array, method: Method, passes: tuple[str, ...] = ()
) -> tuple[TrainState, Tree, Metrics]:
  """Gradients of the global batch; the state comes back with new statistics and method state.

  passes: those whose gradients are taken one after the other and added; () takes one of all.

  The gradient is taken of the device's own loss with respect to parameters typed as the device's
  own, then averaged: unlike a mean inside the differentiated function, this means the same under
  `shard_map` and under `pmap`.
  """
  views = method.targets(state, batch, key)
  if method.alternate:
    loss, aux, grads = turn_gradient(state, views, key, method)
  elif passes:
    state, loss, aux, grads = separate_gradients(state, views, key, method, passes)
  else:
    params = as_varying(state.params, DATA_AXIS)
    loss, aux, grads = own_gradient(params, state, views, method.loss, key)
  grads, metrics, batch_stats = pmean(
    (grads, {"loss": loss, **aux.metrics}, aux.batch_stats), DATA_AXIS
  )
  teacher = state.teacher
  if method.uses_teacher:
    teacher = Variables(teacher.params, pmean(aux.teacher_batch_stats, DATA_AXIS))
  method_state = method.update(state, aux)
  state = state.replace(batch_stats=batch_stats, teacher=teacher, method_state=method_state)
  return state, grads, metrics


def own_gradient(
  params: Tree, state: TrainState, views: Tree, loss_of: Callable, key: jax.Array
) -> tuple[jax.Array, Aux, Tree]:
  """(loss, aux, gradients) of this device; params: typed as its own."""

  def loss_fn(params):
    loss, aux = loss_of(params, state, views, key)
    return as_varying(loss, DATA_AXIS), aux

  (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
  return loss, aux, grads


def turn_gradient(
  state: TrainState, views: Tree, key: jax.Array, method: Method
) -> tuple[jax.Array, Aux, Tree]:
  """The same of the one pass whose turn it is."""

  def branch(name: str) -> Callable:
    loss_of = partial(method.loss, only=name)
    return lambda params: own_gradient(params, state, views, loss_of, key)

  # A branch takes its own gradient: that of a choice would keep room for all passes' activations.
  params = as_varying(state.params, DATA_AXIS)
  return lax.switch(method.turn(state), [branch(name) for name in method.passes], params)


def separate_gradients(
  state: TrainState, views: Tree, key: jax.Array, method: Method, passes: tuple[str, ...]
) -> tuple[TrainState, jax.Array, Aux, Tree]:
  """The same, pass after pass, and the state that the last one started from.

  Each goes on from the statistics and the method state of the one before.
  """
  params = as_varying(state.params, DATA_AXIS)
  loss_of = lambda name: partial(method.loss, only=name)
  total, aux, grads = own_gradient(params, state, views, loss_of(passes[0]), key)
  for name in passes[1:]:
    # the next pass starts only when the activations of this one are gone
    grads, params = lax.optimization_barrier((grads, params))
    state = state.replace(
      batch_stats=pmean(aux.batch_stats, DATA_AXIS), method_state=method.update(state, aux)
    )
    before = aux.metrics
    loss, aux, more = own_gradient(params, state, views, loss_of(name), key)
    total, grads = total + loss, jax.tree.map(jnp.add, grads, more)
    known = {k: jnp.where(jnp.isnan(v), before[k], v) for k, v in aux.metrics.items()}
    aux = aux._replace(metrics=known)
  return state, total, aux, grads


def accumulated_gradients(
  state: TrainState,
  batches: Batch,
  key: jax.Array,
  method: Method,
  count: int,
  passes: tuple[str, ...] = (),
) -> tuple[TrainState, Tree, Metrics]:
  """`gradients` of `count` sub-batches, one after the other, averaged."""

  def body(carry, inputs):
    state, total = carry
    index, batch = inputs
    state, grads, metrics = gradients(state, batch, jax.random.fold_in(key, index), method, passes)
    return (state, jax.tree.map(jnp.add, total, grads)), metrics

  zeros = jax.tree.map(jnp.zeros_like, state.params)
  (state, total), metrics = lax.scan(body, (state, zeros), (jnp.arange(count), batches))
  return (
    state,
    jax.tree.map(lambda g: g / count, total),
    jax.tree.map(lambda m: m.mean(axis=0), metrics),
  )


def moving_average(average: Tree, new: Tree, decay: jax.Array) -> Tree:
  """decay * average + (1 - decay) * new, leaf by leaf in float32."""
  return jax.tree.map(lambda a, n: decay * a + (1 - decay) * n, average, new)
