"""From a config to streams: two domains, extra images, published subsets, what is refused."""

import numpy as np
import pytest

from configs import common
from data import prepare
from semiseg_jax.input import build, pipeline
from semiseg_jax.labels import IGNORE
from tests.data import trees

CROP = (16, 24)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Miniature Cityscapes, GTA5 and CamVid, prepared."""
  root = tmp_path_factory.mktemp("domains")
  extra = root / "raw/cityscapes/leftImg8bit/train_extra/bad/bad_000000_000000_leftImg8bit.png"
  trees.save_image(extra, seed=0)
  with pytest.MonkeyPatch.context() as patch:
    for name in ("cityscapes", "gta5", "camvid"):
      tree = trees.TREES[name](root / "raw" / name, patch)
      prepare.prepare(name, root / "raw" / name, root / "data", tree.variant)
  return root / "data"


@pytest.fixture
def config(data_dir):
  config = common.base_config()
  config.data.name, config.data.variant = "cityscapes", "full"
  config.data.data_dir = str(data_dir)
  config.data.crop = CROP
  config.data.labeled = "1/2_0"
  config.data.labeled_batch, config.data.unlabeled_batch = 1, 2
  config.evaluation.size = None
  return config


def streams(config, names=("labeled", "unlabeled")):
  return build.train_streams(config, build.open_data(config), names)


def test_two_domains_have_batches_of_their_own(config):
  config.data.domain.name, config.data.domain.variant = "gta5", "full"
  config.data.domain.batch = 3
  made = streams(config)
  assert {name: stream.batch for name, stream in made.items()} == {
    "labeled": 1, "unlabeled": 2, "domain": 3,
  }  # fmt: skip
  assert not set(made["labeled"].source.ids) & set(made["unlabeled"].source.ids)
  batch = next(pipeline.train_batches(made, seed=0))
  for name, stream in made.items():
    assert batch[name]["image"].shape == (stream.batch, *CROP, 3)
    assert (batch[name]["label"] != IGNORE).any()
  assert set(streams(config, ("labeled",))) == {"labeled", "domain"}


def test_a_source_of_other_classes_is_refused(config):
  config.data.domain.name = "camvid"
  with pytest.raises(ValueError, match=r"'camvid' has other classes .sky.* cityscapes"):
    streams(config)


def test_extra_images_without_labels(config):
  plain = len(streams(config)["unlabeled"].source)
  config.data.extra_unlabeled = True
  made = streams(config)["unlabeled"].source
  extra = build.open_data(config).extra
  assert len(made) == plain + len(extra) and made.ids[plain:] == list(extra.ids)
  assert (made[len(made) - 1]["label"] == IGNORE).all()
  config.data.name, config.data.variant = "camvid", None
  with pytest.raises(ValueError, match="camvid was prepared without further unlabelled images"):
    streams(config)


def test_validation_as_the_config_wants_it(config, tmp_path):
  whole = build.open_data(config)
  assert whole.info.size == trees.SIZE and len(whole.val) == len(whole.val.ids)
  config.evaluation.transform.name = "shorter_side"
  config.evaluation.transform.length = trees.SIZE[0] // 2
  small = build.open_data(config)
  assert small.info.size == (trees.SIZE[0] // 2, trees.SIZE[1] // 2)
  assert small.val[0]["image"].shape[:2] == small.info.size
  assert len(small.train) == len(whole.train)
  chosen = tmp_path / "chosen.txt"
  chosen.write_text(whole.val.ids[-1])
  config.evaluation.subset = str(chosen)
  assert list(build.open_data(config).val.ids) == [whole.val.ids[-1]]


def test_another_set_stands_in_for_validation(config):
  train = build.open_data(config, "train")
  assert train.val.labeled.all() and set(train.val.ids) <= set(train.train.ids)
  with pytest.raises(ValueError, match="--split=test: cityscapes has no such set with masks"):
    build.open_data(config, "test")
  config.data.name, config.data.variant = "camvid", None
  config.data.resize = 30
  val, test = (build.open_data(config, split).val for split in ("val", "test"))
  assert len(test) and not set(val.ids) & set(test.ids)
  assert min(test[0]["image"].shape[:2]) == 30


def test_every_originals_geometry_is_a_key_away(config):
  config.data.labeled_transform.name = "dst_cbc"
  config.data.unlabeled_transform.name = "c3_unlabeled"
  config.data.unlabeled_transform.height = 20
  for section in (config.data.labeled_transform, config.data.unlabeled_transform):
    del section.scale_range
  batch = next(pipeline.train_batches(streams(config), seed=0))
  assert batch["labeled"]["image"].dtype == np.float32
  assert batch["unlabeled"]["strong"].shape == batch["unlabeled"]["image"].shape == (2, *CROP, 3)
  config.data.labeled_transform.name = "dst_cbd"
  with pytest.raises(ValueError, match="did you mean 'dst_cbc'"):
    streams(config)
