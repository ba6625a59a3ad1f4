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
from semiseg_jax.contract import Aux, Batch, Method, Params, TrainState, Tree

Metrics = dict[str, jax.Array]


def make_train_step(
  method: Method,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  accumulate: int = 1,
  laid: TrainState | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """The jitted step over the mesh: (state, global batch) -> (state, metrics); the state is donated.

  With accumulate > 1 every leaf of the batch has that many sub-batches as its leading axis; each
  is a batch of its own (statistics, mixing, drawn pixels), their gradients are averaged into one
  update. laid: `forms` of the state, in which it comes back; the default ones of jit without.
  """
  rows = P(DATA_AXIS) if accumulate == 1 else P(None, DATA_AXIS)
  per_device = partial(train_step, method=method, optimizer=optimizer, accumulate=accumulate)

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    spec = state_spec(method, state)
    mapped = jax.shard_map(per_device, mesh=mesh, in_specs=(spec, rows), out_specs=(spec, P()))
    return mapped(state, batch)

  return jax.jit(step, donate_argnums=0, out_shardings=laid and (laid, None))


def state_spec(method: Method, state: TrainState) -> TrainState:
  """How the state lies on the mesh: replicated, but for what the method shards of its own."""
  replicated = jax.tree.map(lambda _: P(), state)
  return replicated.replace(method_state=method.state_spec)


def trained_params(method: Method, state: TrainState) -> Params:
  """The parameters of the networks that get gradients."""
  return {name: state.networks[name].params for name in method.trained}


def train_step(
  state: TrainState,
  batch: Batch,
  *,
  method: Method,
  optimizer: optax.GradientTransformation,
  accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
  """One update. All randomness follows from state.rng, state.step and the images' positions."""
  key = jax.random.fold_in(state.rng, state.step)
  learn = gradients if accumulate == 1 else partial(accumulated_gradients, count=accumulate)
  state, grads, aux = learn(state, batch, key, method)
  params = trained_params(method, state)
  updates, opt_state = optimizer.update(grads, state.opt_state, params)
  state = state.with_arrays(params=optax.apply_updates(params, updates))
  state = method.after(state.replace(opt_state=opt_state), aux)
  metrics = {**aux.metrics, "gradient_norm": norm(grads)}
  return state.replace(step=state.step + 1), metrics


def norm(tree: Tree) -> jax.Array:
  """The Euclidean norm of all of a pytree's arrays together.

  Each is summed up to its last axis, which a GPU does where it has the array in hand anyway, and
  these sums in one go: a number of each array would be one more kernel of each.
  """
  squares = [
    jnp.square(x).sum(axis=tuple(range(x.ndim - 1))).ravel() for x in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(lax.optimization_barrier(jnp.concatenate(squares)).sum())


def gradients(
  state: TrainState, batch: Batch, key: jax.Array, method: Method
) -> tuple[TrainState, Params, Aux]:
  """Gradients of the global batch, with its metrics; the state has the statistics after it.

  The gradient is taken of the device's own loss with respect to parameters typed as the device's
  own, then averaged: unlike a mean inside the differentiated function, this means the same under
  `shard_map` and under `pmap`.
  """
  views = method.targets(state, batch, key)
  params = as_varying(trained_params(method, state), DATA_AXIS)
  loss, aux, grads = method.gradient(params, state, views, key)
  grads, metrics, batch_stats = pmean(
    (grads, {"loss": loss, **aux.metrics}, aux.batch_stats), DATA_AXIS
  )
  state = state.with_arrays(batch_stats=batch_stats)
  if aux.method_state is not None:
    state = state.replace(method_state=aux.method_state)
  return state, grads, aux._replace(metrics=metrics, batch_stats={}, method_state=None)


def accumulated_gradients(
  state: TrainState, batches: Batch, key: jax.Array, method: Method, count: int
) -> tuple[TrainState, Params, Aux]:
  """`gradients` of `count` sub-batches, one after the other, averaged; so are the metrics."""

  def body(carry, inputs):
    state, total = carry
    index, batch = inputs
    state, grads, aux = gradients(state, batch, jax.random.fold_in(key, index), method)
    return (state, jax.tree.map(jnp.add, total, grads)), aux

  zeros = jax.tree.map(jnp.zeros_like, trained_params(method, state))
  (state, total), auxes = lax.scan(body, (state, zeros), (jnp.arange(count), batches))
  metrics = jax.tree.map(lambda m: m.mean(axis=0), auxes.metrics)
  last = jax.tree.map(lambda x: x[-1], auxes.extra)
  grads = jax.tree.map(lambda g: g / count, total)
  return state, grads, auxes._replace(metrics=metrics, extra=last)
