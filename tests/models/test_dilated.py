import itertools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.backend import planned_for
from semiseg_jax.collectives import DATA_AXIS
from semiseg_jax.models import dilated
from semiseg_jax.models.dilated import FORMS, dilated_conv, drop_padding_taps
from semiseg_jax.runtime.mesh import make_mesh


def _naive(x, kernel, rate):
  """Sum over the taps of the shifted, zero-padded image."""
  _, height, width, _ = x.shape
  reach = rate * (kernel.shape[0] // 2)
  padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  return sum(
    padded[:, rate * i : rate * i + height, rate * j : rate * j + width] @ kernel[i, j]
    for i in range(kernel.shape[0])
    for j in range(kernel.shape[1])
  )


def _naive_gradients(x, kernel, rate, cotangent):
  """Of the naive form, by linearity in x and in the kernel: exact in float64."""
  run = lambda x, kernel: _naive(x, kernel, rate)
  kernel_grad = np.stack(
    [(run(x, basis.reshape(kernel.shape)) * cotangent).sum() for basis in np.eye(kernel.size)]
  ).reshape(kernel.shape)
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)  # the adjoint of a size-keeping convolution
  return _naive(cotangent, flipped, rate), kernel_grad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
  ("size", "rate"),
  [((8, 8), 2), ((9, 7), 2), ((13, 10), 6), ((5, 11), 6), ((7, 7), 7), ((3, 4), 12), ((1, 1), 6)],
)
def test_every_form_and_its_gradients_are_exact(form, size, rate):
  rng = np.random.default_rng(0)
  x, cotangent = rng.normal(size=(2, *size, 3)), rng.normal(size=(2, *size, 2))
  kernel = rng.normal(size=(3, 3, 3, 2))
  arrays = (x.astype(np.float32), kernel.astype(np.float32))
  y, pullback = jax.vjp(lambda x, kernel: dilated_conv(x, kernel, rate, form), *arrays)
  ours = (y, *pullback(cotangent.astype(np.float32)))
  expected = (_naive(x, kernel, rate), *_naive_gradients(x, kernel, rate, cotangent))
  for a, b in zip(ours, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_channels_may_be_convolved_each_alone(form):
  rng = np.random.default_rng(0)
  x, kernel = rng.normal(size=(2, 9, 7, 4)), rng.normal(size=(3, 3, 1, 4))
  ours = dilated_conv(x.astype(np.float32), kernel.astype(np.float32), 2, form)
  np.testing.assert_allclose(ours, _naive(x, kernel * np.eye(4), 2), rtol=1e-4, atol=2e-5)


def test_taps_on_padding_are_dropped():
  kernel = np.zeros((3, 3, 1, 1))
  shape = lambda rate, size: drop_padding_taps(kernel, rate, size).shape[:2]
  assert shape(6, (7, 7)) == (3, 3)
  assert shape(6, (6, 7)) == (1, 3)
  assert shape(18, (17, 17)) == (1, 1)
  assert drop_padding_taps(np.zeros((5, 5, 1, 1)), 4, (6, 12)).shape[:2] == (3, 5)


def test_an_unknown_form_is_refused():
  with pytest.raises(ValueError, match=r"'fast'.*direct, space_to_batch"):
    dilated_conv(np.zeros((1, 3, 3, 1)), np.zeros((3, 3, 1, 1)), 2, "fast")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_every_platform_has_forms_for_every_rate_and_size(platform):
  with planned_for(platform):
    for rate, side in itertools.product((1, 2, 5, 6, 12, 18, 36), (1, 7, 21, 64)):
      found = dilated.fastest(rate, (3, 3, 4, 4), (2, side, side, 4))
      assert set(found) <= set(FORMS)


def test_products_are_for_taps_that_mostly_meet_padding():
  forms = lambda rate, side: dilated.fastest(rate, (3, 3, 4, 4), (2, side, side, 4))
  assert dilated.share_inside(18, 3, 33) == pytest.approx((33 + 2 * 15) / 99)
  assert set(forms(18, 33)) == {"products"} and set(forms(2, 33)) == {"direct"}
  assert forms(9, 33) == ("products", "products", "direct")


def scaled(form, factor):
  return lambda *args: factor * form(*args)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("rate", [2, 6, 12, 18])
def test_each_pass_takes_its_own_form(monkeypatch, platform, rate):
  factors = dict(zip(FORMS, (1.0, 2.0, 3.0), strict=True))
  rng = np.random.default_rng(0)
  x, kernel, slope = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((1, 19, 20, 3), (3, 3, 3, 2), (1, 19, 20, 2))
  )

  def passes():
    y, pull = jax.vjp(lambda x, kernel: dilated_conv(x, kernel, rate), x, kernel)
    return y, *pull(slope)

  with planned_for(platform):
    plain = passes()
    for name, factor in factors.items():
      monkeypatch.setitem(FORMS, name, scaled(FORMS[name], factor))
    found = passes()
    wanted = dilated.fastest(rate, drop_padding_taps(kernel, rate, (19, 20)).shape, x.shape)
  for a, b, form in zip(found, plain, wanted, strict=True):
    np.testing.assert_allclose(a, factors[form] * b, rtol=1e-4, atol=2e-5)


def test_mixed_forms_may_run_on_several_devices():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 19, 20, 3)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)
  total = lambda x, kernel: (dilated_conv(x, kernel, 6) ** 2).sum()
  grads = jax.grad(total, argnums=(0, 1))
  mesh, rows = make_mesh(jax.devices()[:2]), P(DATA_AXIS)
  shared = jax.shard_map(grads, mesh=mesh, in_specs=(rows, P()), out_specs=(rows, P()))
  expected = grads(x, kernel)
  with planned_for("gpu"):
    found = jax.jit(shared)(x, kernel)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def test_an_exported_program_is_direct_wherever_it_is_made():
  run = lambda x: dilated_conv(x, np.zeros((3, 3, 1, 1), np.float32), 12)
  form = lambda shape: str(jax.make_jaxpr(run)(jax.ShapeDtypeStruct(shape, np.float32)))
  with planned_for("gpu"):
    assert "rhs_dilation=(12, 12)" not in form((1, 33, 33, 1))
    assert "rhs_dilation=(12, 12)" in form(jax.export.symbolic_shape("b, 33, 33, 1"))
    assert "rhs_dilation=(12, 12)" in form(jax.export.symbolic_shape("1, h, 33, 1"))
