"""Every test sees the devices and the compiler's settings of `tests.environment`; toy runs."""

from tests import environment

environment.enter()  # before anything imports jax

import gc  # noqa: E402
import importlib  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from tests import tiny, toy  # noqa: E402

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")  # the same examples every time, whoever runs them


def pytest_collection_finish():
  """Tracing makes many objects; those of imported libraries need not be searched with them."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(200_000, 20, 50)


@pytest.fixture(scope="session")
def data_dir():
  return toy.prepared_scenes()


@pytest.fixture(scope="module")
def traced_fast():
  """Steps with colours by few operations, as `tests.tiny.plain_colors` says."""
  with tiny.plain_colors():
    yield


@pytest.fixture(scope="session")
def tiny_config(data_dir):
  """A function: the toy config of a method, shrunk until a step takes milliseconds."""

  def make(method: str, steps: int = 8, **values):
    config = importlib.import_module(f"configs.toy_{method}").get_config()
    config.data.data_dir = str(data_dir)
    config.data.crop = (32, 32)
    config.data.labeled_batch = config.data.unlabeled_batch = 4  # and so many devices
    config.model.trunk.width, config.model.decoder_dim = 4, 8
    if method == "reco":
      config.method.num_queries = config.method.num_negatives = config.method.embedding_dim = 8
    if method == "memory_bank":  # everything has begun after two steps
      config.method.ramp_steps, config.method.bank_lead, config.method.head_dim = 1, 1, 8
      config.method.threshold = 0.1
      config.method.memory_per_class = 58  # of 60 slots
    config.training.steps = steps
    config.training.log_every = 2
    config.training.checkpoint_every = config.evaluation.every = 4
    config.evaluation.batch = 7  # raised to 8, which 4 devices can share; the last is not full
    config.evaluation.panels = 1
    config.update_from_flattened_dict(values)
    return config

  return make
