"""Distribution, quantiles and domains of the refined normal."""

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax.rankdice.refined_normal import Moments, cdf, domain, moments, pmf, quantile
from tests import golden

_VECTORS = golden.cases("rankdice/refined_normal*")


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
      ours = pmf(counted, jnp.int32(low), up - low, jnp.int32(up))
      np.testing.assert_allclose(ours, case[f"{name}_{which}pmf"], rtol=0, atol=2e-6, err_msg=name)


@_VECTORS
def test_domains_of_many_moments(case):
  size = int(case["domain_dim"])
  for name in (name.removesuffix("_m3") for name in case if name.endswith("_m3")):
    third = case[f"{name}_m3"]
    low, up = domain(Moments(case["domain_mean"], case["domain_var"], jnp.asarray(third)), size)
    np.testing.assert_array_equal(low, case[f"{name}_low"], err_msg=name)
    np.testing.assert_array_equal(up, case[f"{name}_up"], err_msg=name)
