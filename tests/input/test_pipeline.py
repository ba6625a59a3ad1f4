"""The order of the streams: the same for any hosts, threads and workers, and after a restart."""

import pickle

import numpy as np
import pytest

from semiseg_jax import transforms
from semiseg_jax.input import pipeline
from semiseg_jax.input.sources import Source, Subset
from semiseg_jax.labels import IGNORE

KEYS = ("image", "label", "valid_size", "index")
CROP = transforms.ScaleCrop((0.5, 1.5), (6, 7))


class Tiny(Source):
  """Images of noise whose row number can be read off the label."""

  def __init__(self, n, sizes=((8, 9),)):
    self.sizes = sizes
    self.ids = [f"image_{i}" for i in range(n)]
    self.labeled = np.ones(n, bool)

  def __getitem__(self, index):
    size = self.sizes[index % len(self.sizes)]
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
    return {"image": image, "label": np.full(size, index, np.uint8)}


def batches(
  labeled=4, unlabeled=4, domain=0, *, seed=0, sizes=(5, 7, 3), crops=None, replacement=False,
  **kwargs,
):  # fmt: skip
  """Of every stream with a batch size; crops: the streams' transforms."""
  names = ("labeled", "unlabeled", "domain")
  streams = {
    name: pipeline.Stream(Tiny(size), crop, batch, replacement)
    for name, size, crop, batch in zip(
      names, sizes, crops or [CROP] * 3, (labeled, unlabeled, domain), strict=True
    )
    if batch or name == "labeled"
  }
  return pipeline.train_batches(streams, seed=seed, **kwargs)


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def joined(shares):
  """The global batch made of the hosts' shares."""
  return {
    name: {key: np.concatenate([s[name][key] for s in shares]) for key in shares[0][name]}
    for name in shares[0]
  }


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    for key in a[name]:
      np.testing.assert_array_equal(a[name][key], b[name][key])


@pytest.mark.parametrize(
  "sizes", [(4, 4, 0), (4, 8, 0), (2, 6, 0), (10, 10, 0), (8, 0, 0), (4, 8, 4), (2, 4, 6)]
)
def test_rows_are_in_stream_order_for_any_hosts(sizes):
  sizes = dict(zip(("labeled", "unlabeled", "domain"), sizes, strict=True))
  whole = take(batches(**sizes), 3)
  for step, batch in enumerate(whole):
    assert set(batch) == {name for name in sizes if sizes[name]}
    for name, rows in batch.items():
      size = sizes[name]
      assert rows["image"].shape == (size, 6, 7, 3)
      assert rows["image"].dtype == rows["label"].dtype == np.uint8
      assert rows["position"].dtype == np.int32
      assert rows["position"].tolist() == [*range(step * size, (step + 1) * size)]
  for hosts in (2, 4):
    if any(size % hosts for size in sizes.values()):
      continue
    shares = [take(batches(**sizes, host=(h, hosts)), 3) for h in range(hosts)]
    for step, batch in enumerate(whole):
      assert_equal(joined([share[step] for share in shares]), batch)


def test_every_epoch_has_every_image_once_in_a_new_order():
  rows = np.concatenate([b["labeled"]["label"].max((1, 2)) for b in take(iter_whole(), 15)])
  epochs = rows[: 5 * 12].reshape(12, 5)
  assert (np.sort(epochs, 1) == np.arange(5)).all()
  assert len({tuple(epoch) for epoch in epochs.tolist()}) > 6


def iter_whole(seed=0):
  whole = transforms.ScaleCrop()
  return batches(4, 4, 4, seed=seed, sizes=(5, 5, 5), crops=[whole] * 3)


def test_streams_and_seeds_differ():
  order = lambda seed, name: np.concatenate(
    [b[name]["label"].max((1, 2)) for b in take(iter_whole(seed), 10)]
  ).tolist()
  assert order(0, "labeled") == order(0, "labeled")
  orders = [order(seed, name) for seed in (0, 1) for name in ("labeled", "unlabeled", "domain")]
  assert len({tuple(rows) for rows in orders}) == 6


def test_another_stream_changes_nothing_in_the_others():
  for without, whole in zip(take(batches(), 3), take(batches(domain=4), 3), strict=True):
    assert_equal(without, {name: whole[name] for name in without})


def test_images_are_drawn_anew_at_every_visit():
  seen = [b["labeled"]["image"].tobytes() for b in take(batches(1, 0, sizes=(1, 1, 1)), 6)]
  assert len(set(seen)) == 6


def test_two_transforms():
  batch = next(batches(crops=[CROP, transforms.ScaleCrop((1.0, 1.0), (3, 4)), None]))
  assert batch["labeled"]["image"].shape == (4, 6, 7, 3)
  assert batch["unlabeled"]["image"].shape == (4, 3, 4, 3)


def test_state_is_one_integer_for_any_hosts_and_threads():
  whole = take(batches(domain=8), 6)
  iterator = batches(domain=8, threads=4, buffer=8)
  take(iterator, 3)
  state = iterator.get_state()
  assert [type(value) for value in state.values()] == [int]
  for hosts in (1, 2, 4):
    shares = []
    for host in range(hosts):
      resumed = batches(domain=8, host=(host, hosts), threads=1)
      take(resumed, 1)
      resumed.set_state(state)
      shares.append(take(resumed, 3))
      assert resumed.get_state() == shares_state(batches(domain=8), 6)
      resumed.close()
    for step in range(3):
      assert_equal(joined([share[step] for share in shares]), whole[3 + step])
  iterator.close()


def shares_state(iterator, steps):
  take(iterator, steps)
  return iterator.get_state()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_workers_change_nothing_and_restore_each_others_state(workers):
  whole = take(batches(), 4)
  worker = batches(workers=workers)
  for batch, expected in zip(take(worker, 2), whole, strict=False):
    assert_equal(batch, expected)
  resumed = batches(workers=0)
  resumed.set_state(worker.get_state())
  assert_equal(next(resumed), whole[2])
  worker.set_state(resumed.get_state())
  assert_equal(next(worker), whole[3])
  worker.close()


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"labeled": 4, "unlabeled": 6, "host": (0, 4)}, "unlabeled batch of 6 .* 4 hosts"),
    ({"labeled": 3, "host": (0, 2)}, "labeled batch of 3 .* 2 hosts"),
    ({"labeled": 0}, "labeled batch of 0"),
    ({"domain": 2, "host": (0, 4)}, "domain batch of 2 .* 4 hosts"),
    ({"sizes": (0, 3, 3)}, "labeled stream has no image"),
    ({"sizes": (3, 0, 3)}, "unlabeled stream has no image"),
  ],
)
def test_batches_that_cannot_be_made(kwargs, message):
  with pytest.raises(ValueError, match=message):
    batches(**kwargs)


def test_an_error_of_the_source_reaches_the_loop():
  class Broken(Tiny):
    def __getitem__(self, index):
      raise ValueError(f"image_{index} is broken")

  iterator = pipeline.train_batches({"labeled": pipeline.Stream(Broken(2), CROP, 2)}, seed=0)
  with pytest.raises(ValueError, match=r"image_\d is broken"):
    next(iterator)


@pytest.mark.parametrize(
  ("hosts", "devices", "rows"), [(1, 1, 4), (2, 2, 4), (4, 4, 4), (1, 3, 6), (2, 10, 10)]
)
def test_evaluation_sees_every_image_once(hosts, devices, rows):
  """rows: of a step of `batch` 4, which `devices` of all hosts can share."""
  source, images = Tiny(11, sizes=((8, 9), (6, 5))), 11
  options = {"batch": 4, "size": (10, 12), "devices": devices}
  shares = [pipeline.EvalBatches(source, host=(h, hosts), **options) for h in range(hosts)]
  steps_of_a_host = -(-images // rows)
  for _ in range(2):  # as often as you like
    steps = [list(share) for share in shares]
    assert {len(share) for share in steps} == {len(shares[0])} == {steps_of_a_host}
    index = np.concatenate([batch["index"] for step in zip(*steps, strict=True) for batch in step])
    assert index.tolist() == [*range(images)] + [-1] * (steps_of_a_host * rows - images)
    for batch in (batch for share in steps for batch in share):
      assert batch["image"].shape == (rows // hosts, 10, 12, 3)
      for image, label, size, row in zip(*map(batch.get, KEYS), strict=True):
        height, width = size
        inside = np.zeros(label.shape, bool)
        inside[:height, :width] = row >= 0
        assert (label[inside] == row).all() and (label[~inside] == IGNORE).all()
        np.testing.assert_array_equal(image[:height, :width], source[max(row, 0)]["image"])
        np.testing.assert_array_equal(image[height], image[height - 2])  # reflected


def test_labels_finer_than_their_images_stay_so():
  class Halved(Tiny):
    def __getitem__(self, index):
      record = super().__getitem__(index)
      return {**record, "image": record["image"][::2, ::2]}

  batch = next(iter(pipeline.EvalBatches(Halved(2, ((8, 10),)), batch=2, size=(5, 6))))
  assert batch["image"].shape == (2, 5, 6, 3) and batch["label"].shape == (2, 10, 12)
  assert (batch["label"][:, :8, :10] == [[[0]], [[1]]]).all()
  assert (batch["label"][:, 8:] == IGNORE).all() and (batch["label"][:, :, 10:] == IGNORE).all()
  assert batch["valid_size"].tolist() == [[4, 5], [4, 5]]


def test_evaluation_keys_and_types():
  batch = next(iter(pipeline.EvalBatches(Tiny(1), batch=1, size=(8, 9))))
  assert set(batch) == set(KEYS)
  assert batch["valid_size"].dtype == batch["index"].dtype == np.int32


def test_an_image_larger_than_the_evaluation_size():
  with pytest.raises(ValueError, match=r"image_0.*8x9 pixels.*more than the evaluation size 8x8"):
    list(pipeline.EvalBatches(Tiny(1), batch=1, size=(8, 8)))
  with pytest.raises(ValueError, match=r"evaluation batch of 0 .* 2 hosts"):
    pipeline.EvalBatches(Tiny(1), batch=0, size=(8, 8), host=(0, 2))


def test_subsets_keep_what_belongs_to_the_rows():
  subset = pickle.loads(pickle.dumps(Subset(Tiny(5), [3, 1])))
  assert subset.ids == ["image_3", "image_1"] and len(subset) == 2
  assert subset[0]["label"].max() == 3


def test_hosts_with_records_of_their_own():
  shares = [take(batches(host=(index, 2), sharding="records"), 6) for index in range(2)]
  seen = [{int(label.max()) for b in share for label in b["unlabeled"]["label"]} - {IGNORE}
          for share in shares]  # fmt: skip
  assert seen == [{0, 2, 4, 6}, {1, 3, 5}]
  positions = [np.concatenate([b["unlabeled"]["position"] for b in share]) for share in shares]
  assert sorted(np.concatenate(positions)) == list(range(24))  # a key for every image
  alone = take(batches(sharding="records"), 3)
  for ours, theirs in zip(alone, take(batches(), 3), strict=True):
    assert_equal(ours, theirs)
  with pytest.raises(ValueError, match=r"5 images for 8 hosts: use config\.data\.sharding='batch'"):
    batches(labeled=8, unlabeled=8, host=(0, 8), sharding="records")
  with pytest.raises(ValueError, match="choose from batch, records"):
    batches(sharding="images")


def test_drawn_with_replacement():
  rows, others = (
    [order(i) for i in range(5000)] for order in map(pipeline.DrawnOrder, (5, 5), (3, 4))
  )
  counts = np.bincount(rows, minlength=5)
  assert len(counts) == 5 and abs(counts - 1000).max() < 5 * np.sqrt(1000)
  assert any(len(set(rows[i : i + 5])) < 5 for i in range(0, 100, 5))
  assert np.mean(np.equal(rows, others)) < 0.3


def test_draws_with_replacement_are_the_same_for_any_hosts_and_after_a_restart():
  whole = batches(replacement=True)
  seen = take(whole, 4)
  shares = [batches(replacement=True, host=(i, 2)) for i in range(2)]
  for batch in seen:
    assert_equal(batch, joined([next(share) for share in shares]))
  labels = np.concatenate([batch["labeled"]["label"][:, 0, 0] for batch in seen])
  epochs = labels[: 3 * 5].reshape(3, 5)
  assert any(len(set(epoch)) < 5 for epoch in epochs.tolist())
  state = whole.get_state()
  after = next(whole)
  again = batches(replacement=True)
  again.set_state(state)
  assert_equal(next(again), after)
