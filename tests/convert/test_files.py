"""What is in files of weights: tensors come out as arrays, nothing in a file is ever run."""

import argparse
import json
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from semiseg_jax.convert import files

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")

TENSORS = {
  "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
  "bn1.num_batches_tracked": np.array(7),
}


def _torch(prefix=""):
  return {prefix + key: torch.from_numpy(np.array(x)) for key, x in TENSORS.items()}


def _equal(tensors):
  assert set(tensors) == set(TENSORS)
  for key, expected in TENSORS.items():
    np.testing.assert_array_equal(tensors[key], expected, strict=True)


@pytest.mark.parametrize("name", ["a.pth", "A.PT", "best.pth.tar", "checkpoint", "best.model"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torchs_files_are_known_by_what_is_in_them(zipped, name, tmp_path):
  content = {"model": {"inner": _torch(), 3: None}, "class_weights": torch.ones(2), "epoch": 3}
  torch.save(content, tmp_path / name, _use_new_zipfile_serialization=zipped)
  assert zipfile.is_zipfile(tmp_path / name) == zipped
  found, about = files.read(tmp_path / name)
  _equal(found["model"]["inner"])
  assert found["model"]["3"] is None and found["epoch"] == 3 and about == {}
  np.testing.assert_array_equal(found["class_weights"], [1, 1])


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_what_is_written_is_read(suffix, tmp_path):
  path = tmp_path / f"weights{suffix}"
  files.write(path, TENSORS, {"model": {"name": "resnet"}})
  tensors, about = files.read(path)
  _equal(tensors)
  assert about == ({"model": {"name": "resnet"}} if suffix == ".safetensors" else {})
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_half_precision_becomes_float32(tmp_path):
  values = np.array([1.5, -2.25, 0.125], np.float32)
  torch.save({"x": torch.from_numpy(values).bfloat16()}, tmp_path / "a.pth")
  safetensors.save_file({"x": values.astype(ml_dtypes.bfloat16)}, tmp_path / "b.safetensors")
  safetensors.save_file({"x": values.astype(np.float16)}, tmp_path / "c.safetensors")
  for name in ("a.pth", "b.safetensors", "c.safetensors"):
    tensors, _ = files.read(tmp_path / name)
    assert tensors["x"].dtype == np.float32
    np.testing.assert_array_equal(tensors["x"], values)


class _Malicious:
  """Would create a file as soon as it is unpickled."""

  def __init__(self, marker: pathlib.Path):
    self.marker = marker

  def __reduce__(self):
    return pathlib.Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_a_malicious_file_is_refused_and_runs_nothing(kind, tmp_path):
  marker, path = tmp_path / "marker", tmp_path / "weights.pth"
  content = {"state_dict": _torch(), "config": _Malicious(marker)}
  if kind == "pickle":
    path.write_bytes(pickle.dumps(_Malicious(marker)))
  else:
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
  with pytest.raises(ValueError, match=rf"{path} is refused.*Nothing of it was run"):
    files.read(path)
  assert not marker.exists()
  if kind == "pickle":  # the file would have worked
    pickle.loads(path.read_bytes())
    assert marker.exists()


SCALARS = [np.float64(61.5), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("mIoU")]


def test_numbers_of_numpys_are_data(tmp_path):
  """Scores and counts, which trainers keep beside their networks; arrays of objects are none."""
  path = tmp_path / "a.pth"
  torch.save({"state_dict": _torch(), "best": SCALARS}, path)
  found = files.read(path).content["best"]
  assert found == SCALARS and [type(x) for x in found] == [type(x) for x in SCALARS]
  torch.save({"state_dict": _torch(), "config": np.array([print])}, path)
  with pytest.raises(ValueError, match=r"refused.*asks for [\w.]+"):
    files.read(path)


def test_numbers_that_an_older_numpy_wrote(tmp_path):
  """It called the same function differently; written here as its pickle has it."""
  path = tmp_path / "a.pth"
  torch.save({"best": np.float64(2.5)}, path, _use_new_zipfile_serialization=False)
  raw = path.read_bytes()
  assert raw.count(b"cnumpy._core.multiarray") == 1
  path.write_bytes(raw.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
  assert files.read(path).content == {"best": 2.5}


def test_what_is_no_data_is_refused_in_one_line(tmp_path):
  path = tmp_path / "a.pth"
  for content, name in (
    ({"args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    ({"path": pathlib.PurePosixPath("/x")}, "pathlib.PurePosixPath"),
  ):
    torch.save({"state_dict": _torch(), **content}, path)
    with pytest.raises(ValueError, match=f"asks for {name}") as raised:
      files.read(path)
    assert "\n" not in str(raised.value) and "weights_only" not in str(raised.value)


def test_tensors_that_are_no_arrays_are_named(tmp_path):
  torch.save({"model": {"conv.weight": torch.eye(3).to_sparse()}}, tmp_path / "a.pth")
  with pytest.raises(ValueError, match=r"conv\.weight is a tensor of the kind.*sparse"):
    files.read(tmp_path / "a.pth")


def test_what_contains_itself_is_refused(tmp_path):
  content = {"model": {}}
  content["model"]["again"] = content
  torch.save(content, tmp_path / "a.pth")
  with pytest.raises(ValueError, match="contains itself"):
    files.read(tmp_path / "a.pth")


def test_files_without_a_state_dict(tmp_path):
  path = tmp_path / "a.pth"
  torch.save([1, 2], path)
  with pytest.raises(ValueError, match="holds a list, no state dict"):
    files.read(path)


def test_a_header_of_others_is_no_matter(tmp_path):
  safetensors.save_file(TENSORS, tmp_path / "a.safetensors", {"made_by": json.dumps("others")})
  tensors, about = files.read(tmp_path / "a.safetensors")
  _equal(tensors)
  assert about == {}


def test_unknown_suffixes_are_not_written(tmp_path):
  with pytest.raises(ValueError, match=r"should end in \.pth, \.pt or \.safetensors"):
    files.write(tmp_path / "a.npz", TENSORS, {})
