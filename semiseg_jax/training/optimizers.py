"""The optimiser and its schedule, all from optax."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def poly_schedule(
  learning_rate: float, epochs: int, steps_per_epoch: int, power: float, floor: float
) -> optax.Schedule:
  """lr * (1 - epoch/epochs)^power, stepped once per epoch, never below floor (ReCo, `PolyLR`).

  Constant within the steps of an epoch; an epoch of one step follows every step. Past the last
  epoch it stays at the floor. The epochs left are counted in whole numbers: towards the end of a
  long run, 1 - epoch/epochs in float32 is off by a percent.
  """

  def schedule(step: jax.Array) -> jax.Array:
    left = jnp.maximum(epochs - step // steps_per_epoch, 0)
    return jnp.maximum(learning_rate * (left / epochs) ** power, floor)

  return schedule


def make_optimizer(config: ConfigDict, steps: int) -> optax.GradientTransformation:
  """SGD with momentum over all parameters, BatchNorm's and biases included.

  Weight decay is L2 added to the gradient before the momentum, as in the PyTorch originals.
  config: the `optimizer` section; steps: the length of the run.
  """
  epochs = -(-steps // config.steps_per_epoch)
  schedule = poly_schedule(
    config.learning_rate, epochs, config.steps_per_epoch, config.power, config.floor
  )
  return optax.chain(
    optax.add_decayed_weights(config.weight_decay),
    optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov),
  )
