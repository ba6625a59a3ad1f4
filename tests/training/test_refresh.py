"""BatchNorm statistics re-estimated by forward passes, against the original's."""

import itertools

import jax
import numpy as np

from semiseg_jax.contract import Variables
from semiseg_jax.runtime.mesh import make_mesh, replicate, shard_batch
from semiseg_jax.training.refresh import make_refresh_step, refresh
from tests import golden
from tests.methods.test_memory_bank import toy_network, variables


@golden.cases("memory_bank/bn_refresh*")
def test_statistics(case):
  network, fresh = toy_network(4, "cityscapes_rgb")
  recorded = variables(case, "before.")
  start = Variables(*({**all_of, **part} for all_of, part in zip(fresh, recorded, strict=True)))
  batches = itertools.cycle({"image": np.moveaxis(b, 1, -1)} for b in case["batches"])
  mesh = make_mesh(jax.devices()[:2])
  found = refresh(
    make_refresh_step(network, mesh),
    replicate(start, mesh),
    itertools.islice(batches, int(case["iterations"])),
    lambda batch: shard_batch(batch, mesh),
  )
  for norm in ("bn1", "bn2"):
    for ours, theirs in (("mean", "running_mean"), ("var", "running_var")):
      np.testing.assert_allclose(
        found.batch_stats[norm][ours], case[f"after.{norm}.{theirs}"], rtol=1e-5, atol=1e-6
      )
  assert found.params is not None
