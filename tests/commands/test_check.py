"""`python -m semiseg_jax check`: what it finds, says and lists."""

import json
import shutil

import pytest
from PIL import Image

from semiseg_jax.commands import check
from semiseg_jax.input import prepared
from tests.input.folders import breakages, mask_of, write_folder, write_mask


@pytest.fixture
def root(tmp_path):
  write_folder(tmp_path / "pictures")
  return tmp_path / "pictures"


@pytest.fixture
def said(capsys):
  """Runs the command; its exit code and what it printed."""

  def run(*argv) -> tuple[int, str]:
    code = check.main([*map(str, argv)])
    return code, capsys.readouterr().out

  return run


def set_masks(root, ids):
  for i in range(2, 12):
    write_mask(root / "masks" / f"scene{i}.png", mask_of(i, ids=ids))


def test_everything_is_found_and_listed(root, said, tmp_path):
  code, text = said(root, "--class_names=sky,road,car")
  assert code == 0
  assert "10 images, 2 without a mask" in text and "no problems" in text and "1 road" in text
  for break_it, _ in breakages(root).values():
    break_it()
  write_mask(root / "masks" / "stray.png", mask_of(0))
  (root / "images" / "scene6.png").unlink()
  (root / "images" / "scene6.png").symlink_to("nowhere.png")
  bad = tmp_path / "bad.txt"
  code, text = said(root, "--class_names=sky,road,car", "--ignore_index=255", f"--list={bad}")
  assert code == 1
  for part in (
    "3 x undecodable", "1 x size mismatch", "1 x label range", "1 x mask format", "1 x unreadable",
    "scene6.png: No such file", "1 masks without an image", "stray.png", "7 problems",
    f"8 bad files are listed in {bad}",
  ):  # fmt: skip
    assert part in text, part
  files = [("images", (2, 3, 5, 6)), ("masks", (4, 5, 7, 8))]
  expected = {str(root / part / f"scene{i}.png") for part, numbers in files for i in numbers}
  assert set(bad.read_text().splitlines()) == expected


def test_ids_without_class_names(root, said):
  code, text = said(root)
  assert code == 0 and "id 2" in text and "id 3" not in text and "warning" not in text
  with pytest.raises(OSError, match="is not a directory"):
    said(root / "nowhere")


def test_colours_without_class_names(root, said):
  colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)]  # Pascal VOC's
  (root / "dataset.toml").write_text(f"palette = {list(map(list, colours))}")
  for i in range(2, 12):
    write_mask(root / "masks" / f"scene{i}.png", mask_of(i, ids=(0, 2)), colours)
  code, text = said(root)
  assert code == 0 and "id 2" in text and "id 1" not in text
  (root / "dataset.toml").unlink()
  assert said(root)[1] == text


def test_a_class_that_is_taken_for_ignored(root, said):
  set_masks(root, (0, 0, 255))
  code, text = said(root, "--class_names=ground,crack")
  assert code == 0 and "no problems, 2 warnings" in text
  assert "ground is the only class in the 8 masks of train: crack has no pixel" in text
  line = 'values = {0 = "ground", 255 = "crack"}'
  assert f"write to dataset.toml {line}" in text
  (root / "dataset.toml").write_text(line)
  code, text = said(root)
  assert code == 0 and "no problems\n" in text and "1 crack" in text


def test_masks_without_a_label_are_a_problem(root, said):
  set_masks(root, (255,))
  code, text = said(root, "--class_names=ground,crack")
  assert code == 1 and "no pixel of the 2 masks of val has a label" in text
  assert "2 problems" in text


def test_masks_that_cannot_be_read_are_not_complained_of_twice(root, said):
  for path in (root / "masks").iterdir():
    Image.fromarray(mask_of(0)).save(path, "JPEG")
  code, text = said(root, "--class_names=sky,road,car")
  assert code == 1 and "10 problems\n" in text


@pytest.fixture
def toy(data_dir, tmp_path):
  """A prepared set that may be broken."""
  directory = prepared.find_prepared("toy_scenes", data_dir)
  part = directory.relative_to(data_dir)
  shutil.copytree(directory, tmp_path / part)
  return tmp_path / part


def test_a_prepared_set(toy, said, tmp_path):
  for words in (["toy_scenes", f"--data_dir={tmp_path}"], [toy], [tmp_path / "semiseg_toy_scenes"]):
    code, text = said(*words)
    assert code == 0 and "no problems" in text and str(toy) in text
    assert "val: " in text and "images, 0 without a mask" in text
  with pytest.raises(ValueError, match="is prepared: it takes no --class_names"):
    said(toy, "--class_names=a,b")
  with pytest.raises(FileNotFoundError, match="no folder city, and no prepared dataset city under"):
    said("city", f"--data_dir={tmp_path}")


def test_a_prepared_set_that_changed(toy, said, tmp_path):
  path = toy / prepared.METADATA
  metadata = json.loads(path.read_text())
  split = metadata["splits"]["val"]
  split["counts"][3][0] += 1
  path.write_text(json.dumps(metadata))
  code, text = said(toy, f"--list={tmp_path / 'bad.txt'}")
  assert code == 1 and "1 x changed" in text and "has other pixels than" in text
  assert (tmp_path / "bad.txt").read_text() == f"val/{split['ids'][3]}\n"
