"""What `python -m semiseg_jax inspect` prints and draws, of a folder of tiny images."""

import os
import pathlib
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from configs import folder_reco
from semiseg_jax.commands import inspect
from semiseg_jax.evaluation import contact_sheet
from semiseg_jax.input.build import open_data, train_streams
from semiseg_jax.input.counts import class_counts
from semiseg_jax.input.decode import DataError
from semiseg_jax.input.sources import Dataset, DatasetInfo, Joined, Subset
from semiseg_jax.labels import IGNORE
from semiseg_jax.methods import make_method
from semiseg_jax.training.start import make_start
from tests.input.test_pipeline import Tiny

ROOT = pathlib.Path(__file__).parents[2]
SIZE = (24, 32)
NAMES = ("sky", "road", "car", "boat")
STREAMS = ("labeled", "unlabeled")


def make_folder(root: pathlib.Path) -> dict[str, np.ndarray]:
  """Six images, of which the last has no mask, and one to validate; the labels by name.

  A car is in no. 0 alone and in the validation image, a boat only there.
  """
  rng, labels = np.random.default_rng(0), {}
  for folder in ("images", "masks", "val_images", "val_masks"):
    (root / folder).mkdir(parents=True)
  for name in ("0", "1", "2", "3", "4", "5", "val"):
    label = np.zeros(SIZE, np.uint8)
    label[10:] = 1
    label[-2:] = IGNORE
    if name in ("0", "val"):
      label[12:14, :5] = 2
    if name == "val":
      label[15, :4] = 3
    prefix = "val_" if name == "val" else ""
    image = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    cv2.imwrite(str(root / f"{prefix}images" / f"{name}.png"), image)
    if name != "5":
      cv2.imwrite(str(root / f"{prefix}masks" / f"{name}.png"), label)
      labels[name] = label
  return labels


def make_config(root: pathlib.Path, method: str = "mean_teacher"):
  config = folder_reco.get_config(f"size=small,method={method}")
  config.data.root, config.data.class_names = str(root), ",".join(NAMES)
  config.data.crop, config.data.labeled_transform.scale_range = SIZE, (1.0, 1.0)
  config.data.labeled_batch = config.data.unlabeled_batch = 2
  config.model.trunk.width, config.model.decoder_dim = 4, 8
  config.data.labeled = str(root / "ids.txt")
  (root / "ids.txt").write_text("1\n2\n3\n")
  return config


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  return tmp_path / "mine", make_folder(tmp_path / "mine")


def rows_of(table) -> list[list[str]]:
  return [list(row) for row in zip(*(column.cells for column in table.columns), strict=True)]


@pytest.mark.usefixtures("traced_fast")
def test_tables_and_page(folder, tmp_path, monkeypatch, capsys):
  root, _ = folder
  monkeypatch.setenv("COLUMNS", "120")
  path = inspect.inspect(
    make_config(root), title="mine.py", out=tmp_path / "out", images=3, seconds=0.01
  )
  text = capsys.readouterr().out
  for part in ("24x32", "ScaleCrop", "Whole", "boat", "2 threads, as configured", "images/s"):
    assert part in text
  assert str(path) in text and "worker" not in text
  with Image.open(path) as page:
    assert page.width == 1600
    # three samples side by side, of two streams and two views, 24x32 at 193 pixels wide
    assert 4 * 140 < page.height < 1400
    pixels = np.asarray(page)
  assert (pixels == 150).all(-1).sum() > 1000  # stripes on what has no label


def test_every_class_is_counted_as_stored(folder):
  root, labels = folder
  config = make_config(root)
  dataset = open_data(config)
  streams = train_streams(config, dataset, STREAMS)
  table = inspect.class_table(streams, dataset)
  assert [column.header for column in table.columns[1::2]] == [
    "labelled", "unlabelled", "validation"
  ]  # fmt: skip
  sets = (("1", "2", "3"), ("0", "4"), ("val",))
  for class_id, row in enumerate(rows_of(table)):
    expected = [f"{class_id} {NAMES[class_id]}"]
    for names in sets:
      pixels = np.stack([labels[name] for name in names])
      share = (pixels == class_id).sum() / (pixels != IGNORE).sum()
      expected += [f"{share:.2%}", str((pixels == class_id).any((1, 2)).sum())]
    assert row == expected
  assert [row.style for row in table.rows] == [None, None, "red", "red"]


def test_streams_are_described(folder):
  root, _ = folder
  config = make_config(root)
  dataset = open_data(config)
  streams = train_streams(config, dataset, STREAMS)
  batches = inspect.first_batches(config, streams, images=5)
  assert len(batches) == 3
  labeled, unlabeled, val = rows_of(inspect.stream_table(streams, dataset, batches, 4))
  assert labeled == ["labelled", "3", "3", "24x32", "2", f"{2 / 24:.1%} of 6 crops"]
  assert unlabeled[:5] == ["unlabelled", "3", "2", "24x32", "2"]
  assert val == ["validation", "1", "1", "24x32", "4", "-"]


def test_samples_are_named_and_shown_as_they_are(folder):
  root, labels = folder
  config = make_config(root)
  streams = train_streams(config, open_data(config), STREAMS)
  sections = inspect.stream_sections(streams, inspect.first_batches(config, streams, 4), 3)
  assert [len(section.samples) for section in sections] == [3, 3]
  assert {sample.caption for sample in sections[0].samples} == {"1", "2", "3"}
  for sample in (sample for section in sections for sample in section.samples):
    stored = cv2.imread(str(root / "images" / f"{sample.caption}.png"))[..., ::-1]
    np.testing.assert_array_equal(sample.image, stored)
    expected = labels.get(sample.caption, np.full(SIZE, IGNORE))
    np.testing.assert_array_equal(sample.label, expected)


def test_counts_of_joined_and_subset():
  both = Joined(Subset(Tiny(4), [2, 3]), Subset(Tiny(2), [0, 1]))
  counts = class_counts(both, 5, as_stored=True)
  assert (counts > 0).argmax(1).tolist() == [2, 3, 0, 1] and (counts.sum(1) == 72).all()


def test_views_at_any_depth_are_found():
  view = {"image": 1, "label": 2, "confidence": 3}
  found = inspect.labeled_images({"labeled": view, "two": {"weak": {"image": 0}, "strong": view}})
  assert found == {name: {"image": 1, "label": 2} for name in ("labeled", "two/strong")}


def test_a_trained_network_makes_the_pseudo_labels(monkeypatch, tmp_path):
  info = DatasetInfo("mine", NAMES, np.zeros((4, 3), np.uint8), SIZE)
  config = make_config(tmp_path)
  (tmp_path / "ids.txt").write_text("image_0\nimage_1\n")
  dataset, method = Dataset(info, Tiny(4), Tiny(1)), make_method(config.method)
  variables, network, *_ = make_start(config.model, 4, method, seed=1)  # fresh weights are others
  monkeypatch.setattr(inspect, "trained_network", lambda *_: (variables, network, {"step": 7}))
  run, note = inspect.make_run(config, dataset, tmp_path)
  assert "step 7" in note and str(tmp_path) in note
  state = run.initial_state(run.mesh)
  assert set(state.networks) == {"teacher", "student"}
  for arrays in state.networks.values():
    jax.tree.map(np.testing.assert_array_equal, arrays, variables)


def test_page_of_wide_and_small_images_in_their_colors():
  palette = np.asarray([[200, 0, 0], [0, 200, 0]], np.uint8)
  label = np.zeros((10, 20), np.uint8)
  label[:, 10:] = 1
  sample = contact_sheet.Sample("one", np.zeros((10, 20, 3), np.uint8), label)
  page = contact_sheet.contact_sheet(
    "title", [contact_sheet.Section("wide", "note", [sample] * 3)], palette, ["a", "b"]
  )
  assert page.shape[1] == 1600
  for color in ((110, 0, 0), (0, 110, 0)):  # 55 % of the colour over black
    found = (page == color).all(-1).sum()
    assert found == pytest.approx(3 * (390 / 2) * (390 / 2), rel=0.02)  # half of a 390x195 tile


def test_a_damaged_image_is_named(folder, tmp_path):
  root, _ = folder
  (root / "images" / "2.png").write_bytes(b"no picture")
  config = make_config(root, "supervised")
  with pytest.raises(DataError, match=r"2\.png.*does not decode"):
    inspect.inspect(config, title="", out=tmp_path)


def test_the_command_says_what_is_wrong_in_one_line(folder, tmp_path):
  root, _ = folder
  (root / "images" / "2.png").write_bytes(b"no picture")
  process = subprocess.run(
    [
      sys.executable, "-m", "semiseg_jax", "inspect",
      "--config=configs/folder_reco.py:size=small,method=supervised",
      f"--config.data.root={root}", f"--config.data.class_names={','.join(NAMES)}",
      "--config.data.crop=(24, 32)", "--config.data.labeled_batch=5", f"--out={tmp_path / 'out'}",
    ],
    cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, text=True, capture_output=True,
  )  # fmt: skip
  assert process.returncode == 1 and "Traceback" not in process.stderr
  assert "2.png" in process.stderr.splitlines()[-1]
