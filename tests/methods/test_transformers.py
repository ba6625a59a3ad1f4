"""Methods whose originals have convolutions, with a vision transformer for their encoder."""

import jax
import numpy as np
import pytest

from semiseg_jax.commands import run
from semiseg_jax.input.build import open_data
from semiseg_jax.planning.plan import abstract_batch, abstract_state
from semiseg_jax.training import setup
from semiseg_jax.training.choices import choose

VIT = {"width": 4, "depth": 4, "heads": 2, "grid": 2}
QUICK = [("reco", "dpt"), ("c3", "dpt")]
WHOLE = [("reco", "deeplabv3p"), ("memory_bank", "deeplabv3plus"), ("c3", "dpt")]


@pytest.fixture
def config_of(tiny_config):
  def make(method: str, network: str):
    config = tiny_config(method, steps=2)
    if config.model.name != network:
      choose(config, "model", network)
    choose(config, "model.trunk", "vit_tiny", **VIT)
    config.model.decoder_dim = 8
    return config

  return make


@pytest.mark.parametrize(("method", "network"), QUICK)
def test_a_step_is_traced(method, network, config_of, traced_fast):
  config = config_of(method, network)
  made = setup.build(config, open_data(config))
  state = abstract_state(made)
  after, _ = jax.eval_shape(made.train_step(), state, abstract_batch(made, 1))
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(after) == shapes(state)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "network"), WHOLE)
def test_a_run(method, network, config_of, tmp_path):
  """Two steps, an evaluation, and its result."""
  result = run.train(config_of(method, network), tmp_path)
  assert np.isfinite(result["best"]["score"])
