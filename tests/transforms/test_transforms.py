"""What every transform keeps: its size, its input, its seed; and how one is chosen."""

import pickle

import numpy as np
import pytest
from ml_collections import ConfigDict

from semiseg_jax import transforms
from semiseg_jax.input import sources
from semiseg_jax.labels import IGNORE
from semiseg_jax.transforms import geometry

CROP = (12, 20)
SMALL = {  # fields that suit a small image
  "dst_cbc": [{}, {"resize": (24, 48)}],
  "dst_cbc_published": [{"largest": (18, 30)}],
  "memory_bank": [{}, {"halve": True}],
  "c3": [{"height": 16}, {"height": 16, "scales": (0.5, 1.25), "blur": 3, "jitter": 0.5}],
  "c3_unlabeled": [{"height": 16}, {"height": 10, "views": "strong_strong", "gray": 0.5}],
  "zoo": [{}, {"base_size": 30, "blur": True, "fill": 255}],
  "scale_crop": [{"scale_range": (0.5, 1.5)}],
}
TRAINING = [(name, values) for name in transforms.TRAINING for values in SMALL.get(name, [{}])]
EVALUATION = [
  ("whole", {}),
  ("shorter_side", {"length": 15}),
  ("pad", {"size": (40, 60)}),
  ("dst_cbc", {"size": (16, 32)}),
  ("memory_bank", {}),
  ("c3", {"base_size": 20}),
  ("zoo", {"size": 16}),
]


def record(size=(22, 31), seed=0):
  rng = np.random.default_rng(seed)
  image = rng.integers(1, 256, (*size, 3), np.uint8)
  label = rng.integers(1, 5, size).astype(np.uint8)
  return {"image": image, "label": label, "position": np.int32(4)}


class Two(sources.Source):
  """A source of two images of one size."""

  def __init__(self, size):
    self.ids, self.labeled, self.sizes = ["a", "b"], np.ones(2, bool), [size]

  def __getitem__(self, index):
    return record(self.sizes[0], index)

  def fingerprint(self):
    return "two"


@pytest.mark.parametrize("name, values", TRAINING)
@pytest.mark.parametrize("size", [(44, 50), (40, 48), (9, 11)])
def test_training_transforms(name, values, size):
  transform = transforms.make_transform(ConfigDict({"name": name, **values}), CROP)
  transform = pickle.loads(pickle.dumps(transform))
  given, kept = record(size), record(size)
  images = []
  for seed in (0, 0, 1, 2, 3):
    out = transform.random_map(given, np.random.default_rng(seed))
    images.append(out["image"])
    for key in given:
      np.testing.assert_array_equal(given[key], kept[key])
    assert out["position"] == 4 and out["label"].dtype == np.uint8
    assert out["image"].shape == (*CROP, 3) and out["label"].shape == CROP
    assert out["image"].dtype == (np.float32 if name.startswith("dst_cbc") else np.uint8)
    assert ("strong" in out) == (name == "c3_unlabeled")
    if "strong" in out:
      assert out["strong"].shape == (*CROP, 3) and out["strong"].dtype == np.uint8
    assert set(np.unique(out["label"])) <= {0, 1, 2, 3, 4, IGNORE}
    # class 0 comes from its fill, or says where an unlabelled image is
    assert (0 in out["label"]) <= (name in ("zoo", "unimatch_unlabeled"))
  np.testing.assert_array_equal(images[0], images[1])
  fixed = name == "dst_cbc_squash" or (name == "memory_bank" and size == (9, 11))
  assert fixed == all((image == images[0]).all() for image in images)


@pytest.mark.parametrize("name, values", EVALUATION)
@pytest.mark.parametrize("size", [(22, 31), (40, 24)])
def test_evaluation_transforms(name, values, size):
  transform = transforms.make_eval_transform({"name": name, **values})
  source = Two(size)
  ours = sources.Transformed(source, pickle.loads(pickle.dumps(transform)))
  assert len(ours) == 2 and ours.ids == source.ids and ours.sizes == [transform.output_size(size)]
  out, again = ours[1], ours[1]
  assert out["image"].shape[:2] == ours.sizes[0]
  assert out["label"].shape == (size if name == "memory_bank" else ours.sizes[0])
  np.testing.assert_array_equal(out["image"], again["image"])


def test_every_transform_is_tested():
  assert {name for name, _ in EVALUATION} == set(transforms.EVALUATION)


def test_sources_differ_by_their_transform():
  prints = {
    sources.Transformed(Two((4, 4)), transforms.make_eval_transform(config)).fingerprint()
    for config in ({"name": "whole"}, {"name": "pad"}, {"name": "pad", "size": (9, 9)})
  }
  assert len(prints) == 3


@pytest.mark.parametrize(
  "config, message",
  [
    ({"name": "dst_cb"}, "did you mean 'dst_cbc'"),
    ({}, "choose from scale_crop"),
    ({"name": "zoo", "rotat": True}, "did you mean 'rotate'"),
    ({"name": "zoo", "rotate": 3}, "config.data.labeled_transform.rotate=3 must be True or False"),
    (
      {"name": "c3", "scales": 0.5},
      "config.data.labeled_transform.scales=0.5 must be one or more numbers",
    ),
    ({"name": "zoo", "crop": (3, 4)}, "is config.data.crop"),
  ],
)
def test_wrong_configs_say_what_was_meant(config, message):
  with pytest.raises(ValueError) as error:
    transforms.make_transform(config, CROP)
  assert message in str(error.value)


def test_wrong_evaluation_configs_say_what_was_meant():
  with pytest.raises(ValueError, match="did you mean 'whole'"):
    transforms.make_eval_transform({"name": "hole"})
  with pytest.raises(ValueError, match=r"config.evaluation.transform.lenght .* 'length'"):
    transforms.make_eval_transform({"name": "shorter_side", "lenght": 4})


def test_lists_become_tuples():
  transform = transforms.make_transform({"name": "scale_crop", "scale_range": [0.5, 1.0]}, CROP)
  assert hash(transform) == hash(transforms.ScaleCrop((0.5, 1.0), CROP))


def test_rotations_of_both_kinds_agree():
  """On a smooth image, where a 32nd of a pixel is little."""
  rows, columns = np.mgrid[:40, :60]
  image = np.stack([rows * 4, columns * 3, rows + columns], -1).astype(np.float32)
  for angle in (-10, -1, 0, 7):
    difference = abs(geometry.rotate(image, angle) - geometry.rotate_in_steps(image, angle))
    assert difference[8:-8, 8:-8].max() < 0.15
  np.testing.assert_array_equal(geometry.rotate_in_steps(image, 0), image)
  np.testing.assert_array_equal(geometry.rotate_label(rows.astype(np.uint8), 0, 255), rows)
