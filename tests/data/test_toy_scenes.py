"""The toy street scenes: made by code, the same everywhere, and worth learning from."""

import concurrent.futures
import pickle
import subprocess
import sys

import numpy as np
import pytest

from data import prepare
from data.toy_scenes import builder, street
from semiseg_jax.input import prepared, splits
from tests.data import builder_checks


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """A set of 24 + 6 images."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(builder.Builder, "NUM_IMAGES", {"train": 24, "val": 6})
    data_dir = tmp_path_factory.mktemp("toy")
    return prepare.ensure("toy_scenes", data_dir=data_dir), data_dir


def test_prepared(small):
  path, data_dir = small
  dataset = builder_checks.check_prepared(path, "toy_scenes", data_dir)
  assert (len(dataset.train), len(dataset.val)) == (24, 6)
  assert dataset.info.class_names == builder.Builder.CLASS_NAMES and dataset.info.size == (96, 128)
  image, label = street.make_scene(np.random.default_rng([0, 3]))
  np.testing.assert_array_equal(dataset.train[3]["image"], image)
  np.testing.assert_array_equal(dataset.train[3]["label"], label)
  assert pickle.loads(pickle.dumps(dataset.train))[3]["image"].shape == image.shape
  share = np.sort(dataset.train.counts.sum(0) / dataset.train.counts.sum())
  assert 0 < share[0] < 0.02 and share[-1] > 0.25  # very unequal, none missing
  chosen = splits.labeled_indices("reco/4_0", dataset.train, dataset.info, min_classes=3)
  assert len(chosen) == 4


def test_one_prepares_while_the_others_wait(tmp_path, monkeypatch):
  made = []
  scene = lambda rng: made.append(1) or (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))
  monkeypatch.setattr(street, "make_scene", scene)
  monkeypatch.setattr(builder.Builder, "NUM_IMAGES", {"train": 5, "val": 2})
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    paths = list(pool.map(lambda _: prepare.ensure("toy_scenes", data_dir=tmp_path), range(3)))
  assert len(set(paths)) == 1 and len(made) == 7


def test_a_set_that_does_not_verify_is_removed(tmp_path, monkeypatch):
  monkeypatch.setattr(builder.Builder, "NUM_IMAGES", {"train": 2, "val": 1})
  monkeypatch.setattr(prepare, "verify", lambda path: (_ for _ in ()).throw(ValueError("wrong")))
  with pytest.raises(ValueError, match="wrong"):
    prepare.ensure("toy_scenes", data_dir=tmp_path)
  assert not list(tmp_path.glob("*/1.0.0"))


def test_scenes_are_deterministic_and_differ():
  scene = lambda i: street.make_scene(np.random.default_rng(i))[0]
  np.testing.assert_array_equal(scene(1), scene(1))
  assert np.abs(scene(1).astype(int) - scene(2)).mean() > 10


def test_summary_and_damage(small, tmp_path):
  path, _ = small
  table = prepare.summary(path)
  assert table.row_count == 4 + len(builder.Builder.CLASS_NAMES)
  copy = tmp_path / "semiseg_toy_scenes" / "1.0.0"
  copy.mkdir(parents=True)
  for file in path.iterdir():
    (copy / file.name).write_bytes(file.read_bytes())
  prepare.verify(copy)
  metadata = (copy / prepared.METADATA).read_text()
  (copy / prepared.METADATA).write_text(metadata.replace("train_0001", "train_0000"))
  with pytest.raises(ValueError, match="ids of train are not unique"):
    prepare.verify(copy)
  (copy / prepared.METADATA).write_text("{")
  with pytest.raises(ValueError, match=r"metadata\.json is missing or damaged"):
    prepared.open_prepared("toy_scenes", tmp_path)


def test_the_package_reads_it_without_the_builders(small):
  _, data_dir = small
  code = (
    "import sys; from semiseg_jax.input import datasets;"
    f"d = datasets.open_dataset('toy_scenes', data_dir={str(data_dir)!r}); d.train[0];"
    "assert not {'data', 'configs', 'tensorflow'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_data_dir_from_the_environment(small, monkeypatch, capsys):
  path, data_dir = small
  monkeypatch.setenv("SEMISEG_DATA", str(data_dir))
  assert prepare.main(["toy_scenes"]) == 0
  assert "sidewalk" in capsys.readouterr().out
  assert prepare.ensure("toy_scenes") == path
  assert prepare.main(["streets"]) == 1
  assert "unknown dataset 'streets'; there are ['ade20k', 'bdd100k'," in capsys.readouterr().err
  with pytest.raises(ValueError, match="no variant 'huge'"):
    prepare.ensure("toy_scenes", "huge")
