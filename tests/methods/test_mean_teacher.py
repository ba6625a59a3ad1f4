"""The teacher's average against the original's."""

import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from semiseg_jax.contract import TrainState
from semiseg_jax.methods import make_method
from semiseg_jax.models.network import Variables
from tests import golden

DECAY = {"rtol": 1e-6, "atol": 1e-7}  # float32 numbers near 1
AVERAGE = {"rtol": 1e-5, "atol": 1e-6}  # float32 sums over the run
COMMON = {"scale_range": (0.5, 1.5), "strong_threshold": 0.2}
SMALL = {mixing: {**COMMON, "mixing": mixing} for mixing in ("classmix", "cutmix", "cutout")}
SMALL["partial"] = {**COMMON, "partial": True}


def teacher_after(method, step: int, student, teacher):
  """The teacher's parameters after an update, given the student's."""
  networks = {"student": Variables(student, {}), "teacher": Variables(teacher, {})}
  state = TrainState(jnp.int32(step), networks, None, None, None, FrozenDict(), None)
  return method.after(state, None).networks["teacher"].params


@golden.cases("reco/ema_decay*")
def test_teacher_follows_the_student(case):
  method = make_method({"name": "mean_teacher", "ema_decay": float(case["alpha"])})
  teacher, rows = case["init"], (case[name] for name in ("step", "decay", "params", "ema"))
  for step, decay, student, average in zip(*rows, strict=True):
    kept = teacher_after(method, step, jnp.float32(0), jnp.float32(1))
    np.testing.assert_allclose(kept, decay, **DECAY)
    teacher = teacher_after(method, step, student, teacher)
    np.testing.assert_allclose(teacher, average, **AVERAGE)
