"""The state at the start of a run."""

import jax
import numpy as np
import optax
from flax.core import FrozenDict
from jax.sharding import Mesh

from semiseg_jax.contract import Facts, Method, TrainState
from semiseg_jax.runtime.mesh import place
from semiseg_jax.training.start import Start
from semiseg_jax.training.step import state_spec, trained_params


def make_state(
  start: Start,
  method: Method,
  optimizer: optax.GradientTransformation,
  facts: Facts,
  seed: int,
  mesh: Mesh | None = None,
) -> TrainState:
  """Every network as the method starts it; laid over the mesh, on the host without one."""
  networks, method_state = method.start(start.variables, start.make, facts)
  state = TrainState(
    step=np.zeros((), np.int32),
    networks=networks,
    opt_state=None,
    method_state=method_state,
    rng=jax.random.PRNGKey(seed),
    forward=FrozenDict(dict.fromkeys(networks, start.network)),
    facts=facts,
  )
  state = state.replace(opt_state=jax.jit(optimizer.init)(trained_params(method, state)))
  return state if mesh is None else place(state, state_spec(method, state), mesh)
