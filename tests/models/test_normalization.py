import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.models.normalization import NORMALIZATIONS, normalize
from tests import golden

ULP = 2.4e-7  # of values up to 2.64


@golden.cases("reco/quantisation*")
def test_normalize(case):
  levels = np.repeat(np.arange(256, dtype=np.float32)[:, None], 3, axis=1)
  normalised = jax.jit(normalize)(levels)
  assert normalised.dtype == jnp.float32
  np.testing.assert_allclose(np.asarray(normalised).T, case["normalised"], rtol=0, atol=ULP)


@golden.cases("memory_bank/flip_normalize*")
def test_normalize_by_mean_alone(case):
  recorded = [name for name in case if name.startswith(("rgb_", "bgr_"))]
  assert recorded
  for name in recorded:
    order, _, dataset = name.partition("_")
    # of the original's names of datasets: all others are normalised alike
    means = {"pascal_voc": "pascal", "cityscapes": "cityscapes"}.get(dataset, "half")
    images = golden.nhwc(case["image"])[..., :: 1 if order == "rgb" else -1]
    got = normalize(images, NORMALIZATIONS[f"{means}_{order}"])
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, golden.nhwc(case[name]), rtol=0, atol=ULP)


def test_normalize_for_coco_weights():
  got = normalize(np.array([[10, 20, 30]], np.uint8), NORMALIZATIONS["coco"])
  np.testing.assert_allclose(got, [[30 - 104.008, 20 - 116.669, 10 - 122.675]], rtol=1e-6)
