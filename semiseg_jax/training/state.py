"""The state at the start of a run."""

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from semiseg_jax.contract import Facts, Method, Network, TrainState, Variables
from semiseg_jax.runtime.mesh import place
from semiseg_jax.training.step import state_spec


def initial_state(
  variables: Variables,
  forward: Network,
  method: Method,
  optimizer: optax.GradientTransformation,
  facts: Facts,
  seed: int,
) -> TrainState:
  """On the host; the teacher starts as the method has it, from the student."""
  return TrainState(
    step=np.zeros((), np.int32),
    params=variables.params,
    batch_stats=variables.batch_stats,
    teacher=method.init_teacher(variables) if method.uses_teacher else None,
    opt_state=jax.jit(optimizer.init)(variables.params),
    method_state=method.init(facts),
    rng=jax.random.PRNGKey(seed),
    forward=forward,
    facts=facts,
  )


def make_state(
  variables: Variables,
  forward: Network,
  method: Method,
  optimizer: optax.GradientTransformation,
  facts: Facts,
  seed: int,
  mesh: Mesh,
) -> TrainState:
  """The same, laid over the mesh."""
  state = initial_state(variables, forward, method, optimizer, facts, seed)
  return place(state, state_spec(method, state), mesh)
