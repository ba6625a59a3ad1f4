"""The state at the start of a run."""

from collections.abc import Callable

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from semiseg_jax.contract import Method, TrainState, Variables
from semiseg_jax.training.mesh import replicate


def make_state(
  variables: Variables,
  forward: Callable,
  method: Method,
  optimizer: optax.GradientTransformation,
  num_classes: int,
  seed: int,
  mesh: Mesh,
) -> TrainState:
  """Replicated over the mesh; the teacher starts as a copy of the student."""
  state = TrainState(
    step=np.zeros((), np.int32),
    params=variables.params,
    batch_stats=variables.batch_stats,
    teacher=variables if method.uses_teacher else None,
    opt_state=jax.jit(optimizer.init)(variables.params),
    method_state=method.init(num_classes),
    rng=np.asarray(jax.random.PRNGKey(seed)),
    forward=forward,
  )
  return replicate(state, mesh)
