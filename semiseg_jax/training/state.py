"""The state at the start of a run."""

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from semiseg_jax.contract import Facts, Method, Network, TrainState, Variables
from semiseg_jax.training.mesh import place
from semiseg_jax.training.step import state_spec


def make_state(
  variables: Variables,
  forward: Network,
  method: Method,
  optimizer: optax.GradientTransformation,
  facts: Facts,
  seed: int,
  mesh: Mesh,
) -> TrainState:
  """Laid over the mesh; the teacher starts as the method has it, from the student."""
  state = TrainState(
    step=np.zeros((), np.int32),
    params=variables.params,
    batch_stats=variables.batch_stats,
    teacher=method.init_teacher(variables) if method.uses_teacher else None,
    opt_state=jax.jit(optimizer.init)(variables.params),
    method_state=method.init(facts),
    rng=np.asarray(jax.random.PRNGKey(seed)),
    forward=forward,
    facts=facts,
  )
  return place(state, state_spec(method, state), mesh)
