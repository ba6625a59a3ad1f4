"""RankDice against recorded decisions of both copies of the original and against its own scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.rankdice.expected_dice import expected_dice
from semiseg_jax.rankdice.solve import rank_dice
from tests import golden
from tests.rankdice.ranked import assert_consistent, blind_scores, channels_last, settings

_TIE = 1e-6  # of expected Dice, within which volumes may differ
_BLIND = 2  # among the recorded branches
_MAPS = {
  f"{name}-{tag.removesuffix('__tau')}": (case, tag.removesuffix("__tau"))
  for name, case in golden.vectors("rankdice/rank_dice_*", holding="probs").items()
  for tag in case
  if tag.endswith("__tau")
}


def _is_quick(tag: str) -> bool:
  return "root_app2_smooth1p0_tm0" in tag or "fork_app2_smooth0p0_tm1" in tag


@pytest.mark.parametrize(
  "case, tag",
  [
    pytest.param(*value, id=name, marks=() if _is_quick(name) else pytest.mark.slow)
    for name, value in _MAPS.items()
  ],
)
def test_decisions_equal_the_original_but_for_ties(case, tag):
  probs = case["sig_probs" if tag.startswith("sig_") else "probs"]
  chosen = settings(tag.removeprefix("sig_"))
  ours = rank_dice(channels_last(probs), **chosen)
  assert_consistent(channels_last(probs), ours)
  expected = case[f"{tag}__tau"]
  is_same = np.asarray(ours.tau) == expected
  np.testing.assert_array_equal(
    np.moveaxis(ours.masks, -1, 1)[is_same], case[f"{tag}__predict"][is_same] == 1
  )
  np.testing.assert_array_equal(ours.cutpoint[is_same], case[f"{tag}__cutpoint"][is_same])
  for image, k in zip(*np.nonzero(~is_same), strict=True):
    taus = [int(ours.tau[image, k]), expected[image, k]]
    assert abs(taus[0] - taus[1]) <= 1
    if case[f"{tag}__branch"][image, k] == _BLIND:
      domain = (case[f"{tag}__{end}"][image, k] for end in ("low", "up"))
      score = blind_scores(probs[image, k], *domain, chosen["smooth"], chosen["truncate_mean"])
      assert score[taus[0]] >= score[taus[1]] * (1 - 1e-8)
    else:
      score = expected_dice(-jnp.sort(-probs[image, k].ravel()), chosen["smooth"])
      assert score[taus[0]] >= score[taus[1]] * (1 - _TIE)


_EDGE = golden.load("rankdice/rank_dice_edge")
_EDGE_RUNS = sorted({name.split("__")[1] for name in _EDGE if name.count("__") == 2})


def _by_shape(run: str) -> list[list[str]]:
  """Names of the cases of a run, those of one shape together: they share a program."""
  groups: dict[tuple[int, ...], list[str]] = {}
  for name in sorted({n.split("__")[0] for n in _EDGE if n.split("__")[1] == run}):
    groups.setdefault(_EDGE[f"{name}__probs"].shape, []).append(name)
  return list(groups.values())


@pytest.mark.parametrize(
  "names, run",
  [
    pytest.param(names, run, marks=pytest.mark.slow if "_gap" in run or "_tm1" in run else ())
    for run in _EDGE_RUNS
    for names in _by_shape(run)
  ],
)
def test_degenerate_images(names, run):
  """As recorded, equal pixels aside; where the original raises an error, the exact optimum."""
  probs = np.concatenate([channels_last(_EDGE[f"{name}__probs"]) for name in names])
  ours = rank_dice(probs, **settings(run))
  assert_consistent(probs, ours)
  for i, name in enumerate(names):
    if f"{name}__{run}__error" in _EDGE:
      assert ours.tau[i, 0] == rank_dice(probs[i : i + 1], "exact").tau[0, 0], name
      continue
    assert ours.tau[i, 0] == _EDGE[f"{name}__{run}__tau"][0, 0], name
    assert ours.cutpoint[i, 0] == _EDGE[f"{name}__{run}__cutpoint"][0, 0], name
    taken = np.sort(probs[i][_EDGE[f"{name}__{run}__predict"][0, 0, ..., None] == 1])
    np.testing.assert_array_equal(np.sort(probs[i][ours.masks[i]]), taken, name)


@pytest.mark.parametrize("solver", ["ba", "trna", "exact", "rma"])
def test_nearly_certain_images_are_decided_sensibly(solver):
  """Where the original gives nothing, NaN or an error."""
  probs = np.full((6, 16, 16, 1), 1e-7, np.float32)
  probs[0].flat[:20] = 1 - 1e-6
  probs[1].flat[:60], probs[1].flat[60:] = 1, 0
  probs[2] = 0
  probs[3] = 1
  probs[4].flat[::2] = 0.9
  probs[5].flat[7] = 1
  ours = rank_dice(probs, solver, whole=solver in ("ba", "trna"))
  assert_consistent(probs, ours)
  np.testing.assert_array_equal(ours.tau[:, 0], [20, 60, 0, 256, 128, 1])
  assert np.isfinite(ours.cutpoint).all()


def _maps(size: tuple[int, int, int], spread: float, seed: int = 0) -> np.ndarray:
  logits = np.random.default_rng(seed).normal(size=(2, *size)) * spread
  logits += np.linspace(2, -2, size[-1])
  return np.asarray(jax.nn.softmax(jnp.float32(logits)))


@pytest.mark.parametrize(
  "levels, truncate_mean",
  [(8, False), pytest.param(8, True, marks=pytest.mark.slow), (None, True)],
)
def test_the_search_finds_what_a_scan_would(levels, truncate_mean):
  """Also where many pixels are equal; here from few of the pixels, as in large images."""
  probs = _maps((128, 160, 3), 1.5)
  if levels:
    probs = np.round(probs * levels) / levels
  ours = rank_dice(probs, pruning=None, truncate_mean=truncate_mean, smooth=1.0, whole=True)
  assert_consistent(probs, ours)
  for image, k in np.ndindex(2, 3):
    each = probs[image, ..., k].astype(np.float64)
    mean = (each >= 0.5).sum() if truncate_mean else each.sum()
    if mean <= 50:
      continue
    spread = 3.9 * (each * (1 - each)).sum() ** 0.5
    domain = max(int(mean - spread), 0), min(int(mean + spread), each.size)
    tau = int(ours.tau[image, k])
    taus = np.r_[tau, tau - 1, tau + 1, np.arange(1, each.size, 97)].clip(1, each.size)
    score = blind_scores(each, *domain, 1.0, truncate_mean, taus)
    assert score[0] >= score.max() * (1 - 1e-7)


def test_exact_is_never_beaten():
  probs = _maps((12, 12, 3), 1.0)
  for smooth in (1.0,):
    exact = rank_dice(probs, "exact", smooth=smooth, pruning=None)
    for image, k in np.ndindex(2, 3):
      score = expected_dice(-jnp.sort(-probs[image, ..., k].ravel()), smooth)
      assert exact.tau[image, k] == score.argmax()
      for solver in ("ba", "trna", "rma"):
        other = rank_dice(probs, solver, smooth=smooth, pruning=None).tau[image, k]
        assert score[other] <= score.max()
        assert score[other] > score.max() - 0.02


def test_ties_are_taken_in_the_images_order():
  probs = np.zeros((1, 4, 5, 1), np.float32)
  probs.flat[[3, 8, 9, 14]] = 0.9  # one too many for the bound of the search, at 50 and above
  probs = np.concatenate([probs] * 16, 1)
  ours = rank_dice(probs, pruning=0.5)
  inside = np.flatnonzero(probs == np.float32(0.9))
  assert ours.tau[0, 0] == 63
  np.testing.assert_array_equal(np.flatnonzero(ours.masks), inside[:63])
  assert rank_dice(probs, whole=True).tau[0, 0] == 64


@pytest.mark.parametrize("solver", ["ba", pytest.param("exact", marks=pytest.mark.slow), "rma"])
def test_the_same_inside_jit_on_devices_and_for_each_image_alone(solver):
  probs = _maps((24, 20, 3), 1.0)
  mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
  decide = functools.partial(rank_dice, solver=solver)
  mapped = jax.shard_map(decide, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
  decided = jax.jit(mapped)(probs)
  for image in range(2):
    alone = rank_dice(probs[image : image + 1], solver)
    for together, single in zip(decided, alone, strict=True):
      np.testing.assert_array_equal(together[image], single[0])


def test_refused_settings():
  probs = np.full((1, 4, 4, 2), 0.5, np.float32)
  for wrong in (
    {"solver": "best"},
    {"metric": "iou"},
    {"smooth": -1.0},
    {"tail": 0.5},
    {"form": "paper"},
    {"solver": "exact", "truncate_mean": True},
  ):
    with pytest.raises(ValueError, match=next(reversed(wrong))):
      rank_dice(probs, **wrong)
  with pytest.raises(ValueError, match="N,H,W,K"):
    rank_dice(probs[0, 0])
