"""BatchNorm statistics re-estimated by forward passes, against the original's."""

import itertools
import math
import re

import jax
import numpy as np

from semiseg_jax.models.network import Variables
from semiseg_jax.runtime.mesh import make_mesh, replicate
from semiseg_jax.training.refresh import refresh
from tests import golden
from tests.methods.test_memory_bank import toy_network, toy_variables, variables

STATISTICS = {"rtol": 1e-5, "atol": 1e-6}  # float32 sums in another order
LEAVES = {"running_mean": "mean", "running_var": "var"}


@golden.cases("memory_bank/bn_refresh*")
def test_statistics(case):
  network, recorded = toy_network(4, "cityscapes_rgb"), variables(case, "before.")
  pairs = zip(toy_variables(4), recorded, strict=True)
  start = Variables(*({**all_of, **part} for all_of, part in pairs))
  batches = itertools.cycle(np.moveaxis(case["batches"], 2, -1))
  mesh = make_mesh(jax.devices()[: math.gcd(2, case["batches"].shape[1])])
  batches = itertools.islice(batches, int(case["iterations"]))
  found = refresh(network, replicate(start, mesh), batches, mesh)
  compared = [re.fullmatch(r"after\.(\w+)\.(running_mean|running_var)", key) for key in case]
  for match in filter(None, compared):
    ours = found.batch_stats[match[1]][LEAVES[match[2]]]
    np.testing.assert_allclose(ours, case[match[0]], **STATISTICS, err_msg=match[0])
  assert any(compared) and found.params is not None
