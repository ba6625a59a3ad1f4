"""pytorch-segmentation's parts alone, on maps that are larger than their dilations."""

import zlib

import numpy as np
import pytest
from flax import nnx

from semiseg_jax.convert.assign import assign
from semiseg_jax.convert.families.c3_deeplabv2 import plus_rules
from semiseg_jax.convert.family import Family
from semiseg_jax.models.heads import ASPP
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.network import Variables
from semiseg_jax.models.pyramid import PyramidPooling
from semiseg_jax.networks.duc_hdc import DUCHDC, DenseUpsampling
from semiseg_jax.networks.pspnet import PSPNetModule
from semiseg_jax.networks.upernet import UperNetModule
from tests import golden
from tests.convert.recorded import assert_close
from tests.golden.fill import fill
from tests.models import parts

MANIFESTS = golden.load_json("segmentation_zoo/modules.manifest.json")
RECORDED = golden.load("segmentation_zoo/modules")
MAKER = Maker(np.random.default_rng(0))
(WIDE,) = DUCHDC.RATES.values()
RATES = {"assp_os16": (6, 12, 18), "assp_os8": (12, 24, 36), "duc_assp6": WIDE}
RATES["duc_assp4"] = RATES["assp_os16"]
BINS = {"psp_module": PSPNetModule.BINS, "upernet_psp_module": UperNetModule.BINS}


class Holder(nnx.Module):
  """ASPP under the name that the families' rules know it by."""

  def __init__(self, *sizes):
    self.ASPP = ASPP(*sizes, MAKER)

  def __call__(self, x, train):
    return self.ASPP(x, train)


def part_of(name: str) -> tuple[nnx.Module, tuple[tuple[str, str], ...]]:
  """Ours, and the rules of its names, which are the recorded ones behind "it."."""
  (_, channels, side, _), (_, out_channels, out_side, _) = (
    RECORDED[f"{name}__{which}_shape"] for which in ("input", "output")
  )
  if name in RATES:
    rates = RATES[name]
    return Holder(channels, out_channels, rates), plus_rules("", "it", "", convs=1 + len(rates))
  if name in BINS:
    return PyramidPooling(channels, out_channels, BINS[name], MAKER), ((r"", "it."),)
  return DenseUpsampling(channels, out_channels, out_side // side, MAKER), ((r"", "it."),)


@pytest.mark.parametrize("name", MANIFESTS)
def test_outputs(name):
  shape = RECORDED[f"{name}__input_shape"]
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  x = rng.standard_normal(shape).astype(np.float32)
  np.testing.assert_allclose(x.sum(), RECORDED[f"{name}__input_sum"], rtol=1e-4)
  part, rules = part_of(name)
  network, *fresh = parts.split(part)
  tensors = {f"it.{key}": tensor for key, tensor in fill(MANIFESTS[name]).items()}
  family = Family(name, name, rules, (), lambda shapes, extra: {})
  variables, report = assign(family, tensors, Variables(*fresh))
  assert not report.fresh and {why for *_, why in report.left} == {"a counter"}
  y, _ = parts.forward(network, *variables, golden.nhwc(x), False)
  y = np.moveaxis(np.asarray(y), -1, -3)
  assert y.shape == tuple(RECORDED[f"{name}__output_shape"])
  channels, rows, columns = RECORDED[f"{name}__step"]
  assert_close(y[:, ::channels, ::rows, ::columns], RECORDED[f"{name}__output"])
