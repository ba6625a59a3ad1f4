"""A labelling pass: the same labels on any devices, after any kill, and as they are read again."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semiseg_jax import transforms
from semiseg_jax.input import class_balance, pseudo_labels
from semiseg_jax.input.pseudo_labels import PseudoLabels
from semiseg_jax.input.sources import Source, Subset
from semiseg_jax.labels import IGNORE
from semiseg_jax.models.network import Variables
from semiseg_jax.training import labelling
from semiseg_jax.training.labelling import Labelling, label_images

NAMES = ["road", "sky", "tree"]
ABOUT = {"stage": "round_0", "step": 3}


class Noise(Source):
  """Images of two sizes whose pixels tell how sure the network below is of them; truth is known of
  the even ones."""

  def __init__(self, count=11):
    self.ids = [f"image_{i}" for i in range(count)]
    self.labeled = np.arange(count) % 2 == 0
    self.sizes = [(8, 12), (10, 9)]

  def __getitem__(self, index):
    size = self.sizes[index % 2]
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
    truth = image.argmax(-1) if index % 2 == 0 else np.full(size, IGNORE)
    return {"image": image, "label": truth.astype(np.uint8)}


class Brightness:
  """A network whose logits are the image's channels; records what is asked of it."""

  asked = 0

  def __call__(self, params, stats, images, train, keys=None):
    from types import SimpleNamespace

    return SimpleNamespace(logits=images.astype(jnp.float32) / params["softness"]), stats

  def resize(self, logits, size):
    return logits if logits.shape[1:3] == size else logits[:, : size[0], : size[1]]


def label(directory, source=None, ratio=0.4, transform=None, names=NAMES, **values):
  values = {"batch": 2, "chunk": 3, "size": (12, 12), "stride": 3, **values}  # 4 to a chunk
  settings = Labelling(**values)
  transform = transform or transforms.EVALUATION["whole"]()
  variables = Variables({"softness": jnp.float32(40.0)}, {})
  return label_images(
    directory, source or Noise(), variables, Brightness(), names, settings, transform, ratio, ABOUT
  )


def expected(source):
  """Label and confidence of every image."""
  for row in range(len(source)):
    probs = np.asarray(jax.nn.softmax(source[row]["image"].astype(np.float32) / 40))
    yield probs.argmax(-1), probs.max(-1)


@pytest.mark.parametrize("exact", [True, False])
def test_labels_and_thresholds(tmp_path, exact):
  source = Noise()
  found = label(tmp_path / "labels", exact=exact)
  maps = list(expected(source))
  flat = [np.concatenate([x.reshape(-1)[::3] for x in part]) for part in zip(*maps, strict=True)]
  thresholds = class_balance.exact_thresholds(*flat, 3, 0.4)
  np.testing.assert_allclose(found["thresholds"], thresholds, atol=1e-6 if exact else 1e-3)
  pixels, total, right = 0, 0, []
  reader = PseudoLabels(source, tmp_path / "labels")
  for row, (wanted, confidence) in enumerate(maps):
    record = reader[row]
    np.testing.assert_allclose(record["confidence"], confidence, rtol=0, atol=1e-6)
    is_kept = record["confidence"] >= np.float32(found["thresholds"])[wanted]
    np.testing.assert_array_equal(record["label"], np.where(is_kept, wanted, IGNORE))
    np.testing.assert_array_equal(record["image"], source[row]["image"])
    pixels, total = pixels + is_kept.sum(), total + is_kept.size
    if row % 2 == 0:
      right.append((wanted == source[row]["label"])[is_kept])
  np.testing.assert_allclose(found["kept"], pixels / total, atol=2e-3)
  np.testing.assert_allclose(found["right"], np.concatenate(right).mean(), atol=1e-3)
  assert len(found["kept_of_class"]) == 3 and "ids" not in found


def test_the_published_rule(tmp_path):
  source = Noise()
  found = label(tmp_path / "labels", version="published", exact=True, size=(12, 12))
  reader, counts = PseudoLabels(source, tmp_path / "labels"), np.zeros(3)
  for row in range(len(source)):
    probs = np.asarray(jax.nn.softmax(source[row]["image"].astype(np.float32) / 40))
    wanted = class_balance.divided(probs, np.float32(found["thresholds"]))
    label_of = reader[row]["label"]
    assert (label_of != np.asarray(wanted)).mean() < 0.02  # where two classes are as good
    counts += np.bincount(label_of[label_of < 3], minlength=3)
  assert found["final"] and counts.sum() > 0


def stored(directory):
  return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("version", class_balance.VERSIONS)
def test_killed_anywhere_it_ends_with_the_same_files(tmp_path, monkeypatch, version):
  label(tmp_path / "whole", version=version)
  whole = stored(tmp_path / "whole")
  assert len([name for name in whole if name.startswith("chunk")]) == 3
  write, writes = pseudo_labels.ChunkWriter.write, 0

  def dying(self, *args):
    nonlocal writes
    writes += 1
    if writes in (2, 7):
      raise KeyboardInterrupt
    write(self, *args)

  monkeypatch.setattr(pseudo_labels.ChunkWriter, "write", dying)
  for _ in range(2):
    with pytest.raises(KeyboardInterrupt):
      label(tmp_path / "broken", version=version)
    with pytest.raises(FileNotFoundError, match="no finished pseudo-labels"):
      PseudoLabels(Noise(), tmp_path / "broken")
  label(tmp_path / "broken", version=version)
  assert stored(tmp_path / "broken") == whole
  monkeypatch.setattr(labelling, "_Pass", None)  # nothing is left to do
  label(tmp_path / "broken", version=version)


def test_the_same_on_any_number_of_devices(tmp_path, monkeypatch):
  local, found = jax.local_devices(), []
  for count in (1, 3, 8):
    monkeypatch.setattr(jax, "local_devices", lambda count=count: local[:count])
    label(tmp_path / str(count), version="published")
    found.append(stored(tmp_path / str(count)))
  assert found[0] == found[1] == found[2]


def test_what_was_asked_otherwise_is_refused(tmp_path):
  label(tmp_path)
  with pytest.raises(ValueError, match=r"other pseudo-labels, ratio: 0.4 there, 0.5 now"):
    label(tmp_path, ratio=0.5)
  reader = PseudoLabels(Subset(Noise(), [4, 1]), tmp_path)
  np.testing.assert_array_equal(reader[1]["label"], PseudoLabels(Noise(), tmp_path)[1]["label"])
  with pytest.raises(ValueError, match=r"no pseudo-labels of 2 of 13 images, first \['image_11'"):
    PseudoLabels(Noise(13), tmp_path)
  again = pickle.loads(pickle.dumps(reader))
  np.testing.assert_array_equal(again[0]["confidence"], reader[0]["confidence"])


def test_maps_of_another_size_go_through_the_transform(tmp_path):
  resized = transforms.EVALUATION["dst_cbc"](size=(6, 6))
  label(tmp_path, transform=resized, size=(6, 6), label_size=(3, 4))
  record = PseudoLabels(Noise(), tmp_path)[0]
  assert record["label"].shape == record["confidence"].shape == (3, 4)
  crop = transforms.TRAINING["dst_cbc"](scale_range=(0.5, 1.5), crop=(7, 8))
  out = crop.random_map(record, np.random.default_rng(0))
  assert out["image"].shape == (7, 8, 3)
  assert out["label"].shape == out["confidence"].shape == (7, 8)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b'{"ids": []}'])
def test_a_foreign_index_is_named(content, tmp_path):
  (tmp_path / "labels.json").write_bytes(content)
  with pytest.raises(ValueError, match=r"labels\.json .*remove the folder"):
    pseudo_labels.read_index(tmp_path)
