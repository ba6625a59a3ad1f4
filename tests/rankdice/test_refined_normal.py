"""Distribution, quantiles and domains of the refined normal."""

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.rankdice.refined_normal import (
  Moments,
  cdf,
  density,
  domain,
  moments,
  pmf,
  quantile,
)
from tests import golden

_VECTORS = golden.cases("rankdice/refined_normal*")
_SUCCESSORS_SIZE = 600  # pixels of its recorded distributions
_WIDEST = 512  # one program for all domains
_pmf = jax.jit(pmf, static_argnames=("length", "clip_cdf"))


@_VECTORS
def test_quantiles_in_float32_equal_scipys_root_finder(case):
  lower, upper = jax.jit(quantile, static_argnums=0)(1e-4, jnp.float32(case["quantile_skew"]))
  np.testing.assert_allclose(lower, case["quantile_1e-4"], rtol=0, atol=1e-6)
  np.testing.assert_allclose(upper, case["quantile_1-1e-4"], rtol=0, atol=1e-6)


@_VECTORS
def test_cdf(case):
  ours = cdf(jnp.float32(case["cdf_x"]), jnp.float32(case["cdf_skew"])[:, None])
  np.testing.assert_allclose(ours, case["cdf"], rtol=0, atol=1e-6)


@_VECTORS
def test_moments_domain_and_pmf(case):
  for name in (name.removesuffix("_p") for name in case if name.endswith("_p")):
    probs = case[f"{name}_p"]
    counted = Moments(*(x[0] for x in moments(probs[None])))
    np.testing.assert_allclose(counted, case[f"{name}_stats"], rtol=1e-6, atol=1e-5, err_msg=name)
    counted = Moments(*jnp.asarray(case[f"{name}_stats"]))
    np.testing.assert_array_equal(domain(counted, len(probs)), case[f"{name}_domain"])
    for which in ("", "wide_"):
      low, up = case[f"{name}_{which}domain"]
      assert up - low <= _WIDEST
      ours = _pmf(counted, jnp.int32(low), length=_WIDEST, up=jnp.int32(up))[: up - low]
      np.testing.assert_allclose(ours, case[f"{name}_{which}pmf"], rtol=0, atol=2e-6, err_msg=name)


@_VECTORS
def test_domains_of_many_moments(case):
  size = int(case["domain_dim"])
  for name in (name.removesuffix("_m3") for name in case if name.endswith("_m3")):
    third = case[f"{name}_m3"]
    low, up = domain(Moments(case["domain_mean"], case["domain_var"], jnp.asarray(third)), size)
    np.testing.assert_array_equal(low, case[f"{name}_low"], err_msg=name)
    np.testing.assert_array_equal(up, case[f"{name}_up"], err_msg=name)


def _recorded_normals(case) -> Moments:
  """Moments [R] of the recorded distributions."""
  scale = jnp.asarray(case["rnpb_scale"])
  return Moments(jnp.asarray(case["rnpb_loc"]), scale**2, case["rnpb_skew"] * scale**3)


_NORMALS = golden.cases("rankdice/successor*", holding="rnpb_loc")


@_NORMALS
def test_the_successors_distribution(case):
  counted = _recorded_normals(case)
  zero, many = jnp.zeros(counted.mean.shape, jnp.int32), int(case["rnpb_x"].max()) + 1
  ours = _pmf(counted, zero, length=many, up=zero + many, clip_cdf=True)
  np.testing.assert_allclose(ours, case["rnpb_pmf"], rtol=0, atol=2e-6)
  x = (case["rnpb_x"] + 0.5 - case["rnpb_loc"][:, None]) / case["rnpb_scale"][:, None]
  skew = jnp.asarray(case["rnpb_skew"])[:, None]
  np.testing.assert_allclose(jnp.clip(cdf(x, skew), 0, 1), case["rnpb_cdf"], rtol=0, atol=1e-6)
  at_center = (case["rnpb_x"] - case["rnpb_loc"][:, None] + 0.5) / case["rnpb_scale"][:, None]
  ours = jnp.clip(density(at_center, skew), 0) / case["rnpb_scale"][:, None]
  np.testing.assert_allclose(ours, case["rnpb_pdf"], rtol=0, atol=1e-6)


@_NORMALS
def test_the_successors_quantiles_and_domains(case):
  counted = _recorded_normals(case)
  for column, share in zip(case["rnpb_icdf"].T, case["rnpb_p"], strict=True):
    tail = float(min(share, 1 - share))
    found = quantile(tail, jnp.asarray(case["rnpb_skew"]))[int(share > 0.5)]
    ours = case["rnpb_loc"] - 0.5 + case["rnpb_scale"] * found
    # its bisection ends where a float32 near 1 does
    np.testing.assert_allclose(ours, column, rtol=0, atol=2e-3, err_msg=str(share))
  for name in (name.removesuffix("_low") for name in case if name.endswith("_low")):
    tail = 0.5 * float(name.removeprefix("interval_eps"))
    low, up = domain(counted, _SUCCESSORS_SIZE, tail, skew_shift=0.0)
    np.testing.assert_array_equal(low, case[f"{name}_low"], err_msg=name)
    np.testing.assert_array_equal(up, case[f"{name}_up"], err_msg=name)
