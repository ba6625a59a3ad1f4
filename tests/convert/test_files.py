"""State dicts in files: every wrapping is recognised, nothing in a file is ever run."""

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


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
  ("wrap", "beside"),
  [
    (lambda state: state, set()),
    (lambda state: {"state_dict": state, "epoch": 3}, {"epoch"}),
    (lambda state: {"model": state, "optimizer": {"state": {}}, "amp": None}, {"optimizer", "amp"}),
    (lambda state: {**state, "iteration": 5}, {"iteration"}),
  ],
  ids=["bare", "state_dict", "model", "beside"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappings_are_taken_off(wrap, beside, prefix, zipped, tmp_path):
  path = tmp_path / "weights.pth"
  torch.save(wrap(_torch(prefix)), path, _use_new_zipfile_serialization=zipped)
  assert zipfile.is_zipfile(path) == zipped
  tensors, extra = files.read(path)
  _equal(tensors)
  assert set(extra) == beside


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_what_is_written_is_read(suffix, tmp_path):
  path = tmp_path / f"weights{suffix}"
  files.write(path, TENSORS, {"model": {"name": "resnet"}})
  tensors, extra = files.read(path)
  _equal(tensors)
  assert extra == ({"about": {"model": {"name": "resnet"}}} if suffix == ".safetensors" else {})
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


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.pth", b"PK\x03\x04 cut off", "damaged or no file of PyTorch"),
    ("a.pth", b"", "damaged or no file of PyTorch"),
    ("a.safetensors", b"\xff" * 40, "can't be read as safetensors"),
    ("a.npz", b"", r"should end in one of \.safetensors, \.pth"),
  ],
)
def test_damaged_files(name, content, message, tmp_path):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message):
    files.read(tmp_path / name)


def test_files_without_a_state_dict(tmp_path):
  path = tmp_path / "a.pth"
  torch.save({"optimizer": {"lr": 0.1}, "epoch": 3}, path)
  with pytest.raises(ValueError, match=r"no state dict at the top nor under.*optimizer, epoch"):
    files.read(path)
  torch.save([1, 2], path)
  with pytest.raises(ValueError, match="holds a list, not a state dict"):
    files.read(path)


def test_a_header_of_others_is_no_matter(tmp_path):
  safetensors.save_file(TENSORS, tmp_path / "a.safetensors", {"made_by": json.dumps("others")})
  tensors, extra = files.read(tmp_path / "a.safetensors")
  _equal(tensors)
  assert extra == {}


def test_unknown_suffixes_are_not_written(tmp_path):
  with pytest.raises(ValueError, match=r"should end in \.pth, \.pt or \.safetensors"):
    files.write(tmp_path / "a.npz", TENSORS, {})
