"""FixMatch's teacher, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax.methods import make_method
from tests import golden
from tests.methods.test_mean_teacher import teacher_after

SMALL = {"": {"strong_threshold": 0.3}}


@golden.cases("unimatch_v2/schedules*")
def test_teacher_follows_the_student(case):
  method = make_method({"name": "fixmatch"})
  for name in case["names"]:
    for step, kept in zip(case[f"{name}.iterations"], case[f"{name}.ema_ratio_f64"], strict=True):
      found = teacher_after(method, int(step), jnp.float32(0), jnp.float32(1))
      np.testing.assert_allclose(found, kept, rtol=1e-6, atol=1e-7)


def test_margins_must_be_known():
  method = make_method({"name": "fixmatch"})
  data = {"domain": {"name": None}, "unlabeled_transform": {"name": "scale_crop"}}
  config = {"method": {"name": "fixmatch"}, "data": data}
  with pytest.raises(ValueError, match=r"name='scale_crop': fixmatch needs 'unimatch_unlabeled'"):
    method.check(config)
  data["unlabeled_transform"]["name"] = "unimatch_unlabeled"
  method.check(config)
