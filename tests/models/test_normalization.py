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


def test_zoo_has_the_originals_input():
  """Of the recorded item: levels / 255, less VOC's mean, by its deviation."""
  for case in golden.vectors("segmentation_zoo/augmentation").values():
    numbers = [k.removesuffix("__item_image") for k in case if k.endswith("__item_image")]
    assert numbers
    for number in numbers:
      expected = golden.nhwc(case[f"{number}__item_image"])
      mean, std = (np.array(x) for x in NORMALIZATIONS["zoo_voc"][:2])
      levels = np.rint((expected * std + mean) * 255)
      got = normalize(levels, NORMALIZATIONS["zoo_voc"])
      np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
