import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from semiseg_jax.labels import IGNORE
from semiseg_jax.losses import bank as banks
from semiseg_jax.losses.bank import Bank, enqueue
from semiseg_jax.losses.memory import remember
from tests import golden
from tests.devices import DEVICES
from tests.losses.banks import contents, from_contents
from tests.models import parts, stacked

_SCORE = {"rtol": 1e-5}  # float32 through two layers
_STATISTIC = {"rtol": 1e-5, "atol": 1e-7}


@golden.cases("memory_bank/bank_*", holding="table")
def test_the_quota_equals_the_original(case):
  for is_pascal, num_classes, images, capacity, expected in case["table"].tolist():
    factor = num_classes / 3 if is_pascal else 1
    assert banks.quota(images, capacity, factor) == expected


@golden.cases("memory_bank/bank_*", holding="num_steps")
def test_the_bank_holds_what_the_originals_does(case):
  num_classes, dim = int(case["num_classes"]), case["step0.features"].shape[1]
  elements, capacity = int(case["elements_per_class"]), int(case["memory_per_class"])
  network, _, _ = parts.split(stacked.selectors(num_classes, dim))
  state = stacked.part(case, "sel.")
  params = stacked.params(state, stacked.PIXELS, num_classes)
  statistics = stacked.statistics(state, stacked.PIXELS, num_classes)

  @jax.jit
  def step(bank, statistics, rows, classes):
    def run(selectors):
      options = {"elements": elements, "capacity": capacity}
      after = remember(bank, selectors, rows, classes, **options)
      return after, selectors(rows, classes, True, np.zeros(num_classes, bool))

    return network.apply(params, statistics, run)

  step_rank = lambda s, c: case.get(f"step{s}.rank.{c}")
  longest = max(len(case[f"step{s}.labels"]) for s in range(case["num_steps"]))
  bank = banks.empty(num_classes, banks.slots(capacity, elements, 1), dim)
  for s in range(case["num_steps"]):
    rows = np.ones((longest, dim), np.float32)
    classes = np.full(longest, IGNORE, np.int32)
    here = len(case[f"step{s}.labels"])
    rows[:here], classes[:here] = case[f"step{s}.features"], case[f"step{s}.labels"]
    (bank, scores), statistics = step(bank, statistics, rows, classes)
    for c, ours in enumerate(contents(bank)):
      np.testing.assert_array_equal(ours, case.get(f"step{s}.bank.{c}", np.zeros((0, dim))))
      if step_rank(s, c) is not None:
        np.testing.assert_allclose(scores[classes == c], step_rank(s, c), **_SCORE)
  first = f"after.sel.{stacked.PIXELS}0.1.running_"
  for name in ("mean", "var"):
    np.testing.assert_allclose(statistics["1"][name][0], case[first + name], **_STATISTIC)


_K, _D, _ROWS, _STEPS = 4, 3, 32, 12


def _batches(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Rows, classes (crowded, few, rare and mostly none) and scores, in which ties occur."""
  rng = np.random.default_rng(seed)
  batches = []
  for _ in range(_STEPS):
    share = rng.dirichlet([2, 0.5, 0.2, 0.05, 1])
    classes = rng.choice([0, 1, 2, 3, IGNORE], _ROWS, p=share).astype(np.int32)
    scores = rng.integers(0, 20, _ROWS).astype(np.float32)
    batches.append((rng.normal(size=(_ROWS, _D)).astype(np.float32), classes, scores))
  return batches


def _plain(old_rows, rows, classes, scores, elements, capacity, sign=1):
  """The rule in numpy, on lists."""
  after = []
  for c, old in enumerate(old_rows):
    new = rows[classes == c]
    if len(new) > elements:
      new = new[np.argsort(sign * scores[classes == c], kind="stable")[:elements]]
    joined = np.concatenate([new, old])
    after.append(joined[:capacity] if len(new) and len(old) else joined)
  return after


def _mapped(devices, **options):
  mesh = jax.make_mesh(
    (devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices]
  )
  sharded = Bank(P(None, "data"), P(), P())
  return jax.jit(
    jax.shard_map(
      functools.partial(enqueue, axis_name="data", **options),
      mesh=mesh,
      in_specs=(sharded, P("data"), P("data"), P("data")),
      out_specs=sharded,
    )
  )


def _follows_the_rule(step, elements, capacity, slots, sign=1):
  """Whether a step on a bank does at each of many batches what the rule does."""
  bank, wanted = banks.empty(_K, slots, _D), [np.zeros((0, _D), np.float32)] * _K
  wrapped = False
  for batch in _batches():
    wanted = _plain(wanted, *batch, elements, capacity, sign)
    bank = step(bank, *batch)
    for ours, expected in zip(contents(bank), wanted, strict=True):
      np.testing.assert_array_equal(ours, expected)
    wrapped |= bool((np.asarray(bank.head) + np.asarray(bank.count) > slots).any())
  return wrapped


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize(("elements", "capacity"), [(3, 16), (9, 8)])
def test_devices_keep_one_bank(devices, elements, capacity):
  slots = banks.slots(capacity, elements, 8)
  step = _mapped(devices, elements=elements, capacity=capacity)
  assert _follows_the_rule(step, elements, capacity, slots)


def test_without_a_mesh_the_bank_is_the_same_and_may_prefer_high_scores():
  options = {"elements": 3, "capacity": 16, "rank_order": "descending"}
  step = jax.jit(functools.partial(enqueue, **options))
  assert _follows_the_rule(step, 3, 16, 16, sign=-1)


def test_an_elements_limit_above_the_batch_takes_everything():
  step = jax.jit(functools.partial(enqueue, elements=40, capacity=64))
  _follows_the_rule(step, 40, 64, 64)


def test_contents_move_to_a_bank_of_other_slots():
  rows = [np.random.default_rng(c).normal(size=(c, _D)).astype(np.float32) for c in (0, 3, 5)]
  bank = from_contents(rows, 8)
  for moved in (bank, from_contents(contents(bank), 12)):
    jax.tree.map(np.testing.assert_array_equal, contents(moved), rows)
  in_use = banks.filled(bank.replace(head=jnp.array([0, 2, 6])))
  np.testing.assert_array_equal(np.flatnonzero(in_use[1]), [2, 3, 4])
  np.testing.assert_array_equal(np.flatnonzero(in_use[2]), [0, 1, 2, 6, 7])


def test_neither_the_bank_nor_the_batch_travels():
  """Only K*elements rows and their scores do, however many rows there are."""
  step = _mapped(8, elements=3, capacity=16)
  text = step.lower(banks.empty(_K, 16, _D), *_batches()[0]).compile().as_text()
  assert "all-gather" not in text and "all-to-all" not in text
  sums = [line for line in text.splitlines() if " all-reduce(" in line]
  assert sums and not any(f"[{_ROWS},{_D}]" in line or f",16,{_D}]" in line for line in sums)


def test_bad_arguments_are_named():
  batch = _batches()[0]
  with pytest.raises(ValueError, match="rank_order='best'"):
    enqueue(banks.empty(_K, 8, _D), *batch, elements=2, capacity=8, rank_order="best")
  with pytest.raises(ValueError, match="8 slots cannot take 9 rows"):
    enqueue(banks.empty(_K, 8, _D), *batch, elements=9, capacity=8)
