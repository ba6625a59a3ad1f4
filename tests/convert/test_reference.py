"""The originals' networks in PyTorch give the originals' recorded outputs, too."""

import json
import pathlib

import numpy as np
import pytest

from semiseg_jax.convert.reference import reference_forward
from tests import golden
from tests.golden.fill import fill

torch = pytest.importorskip("torch")

_GOLDEN = pathlib.Path(golden.__file__).parent
TOLERANCE = 1e-4  # of the largest value: another version of PyTorch, other sums

# family, name, manifest, vector, its input and its expected outputs
CASES = [
  ("reco", "deeplabv3p", "reco/deeplabv3p_19", "reco/deeplabv3p_19", "input", "pred"),
  ("reco", "deeplabv2", "reco/deeplabv2_19", "reco/deeplabv2_19", "input", "pred"),
  *(
    ("memory_bank", name.partition("_resnet")[0], *[f"memory_bank/{name}"] * 2, *keys)
    for name in ("deeplabv2_coco", "deeplabv2_imagenet", "deeplabv3plus_resnet50")
    for keys in [("eval1.input", "eval1.logits")]
  ),
  ("dst_cbc", "deeplabv2", *["dst_cbc/deeplabv2_resnet101"] * 2, "eval1_input", "eval1_logits"),
  (
    "torchvision_deeplabv3", "deeplabv3", *["dst_cbc/deeplabv3_resnet101"] * 2,
    "eval_input", "eval_logits",
  ),
  ("advsemiseg", "deeplabv2", "dst_cbc/advsemiseg_coco", "dst_cbc/coco_forward", "input", "logits"),
  (
    "advsemiseg", "deeplabv2_coco", "dst_cbc/advsemiseg_coco", "dst_cbc/coco_forward",
    "input", "advsemiseg_logits",
  ),
]  # fmt: skip


_SOME = ("deeplabv3p", "deeplabv3plus", "deeplabv2_coco")  # one of each kind; the others are slow


@pytest.mark.parametrize(
  "case",
  [pytest.param(c, marks=[] if c[1] in _SOME else pytest.mark.slow) for c in CASES],
  ids=lambda c: f"{c[0]}-{c[1]}",
)
def test_recorded_outputs(case):
  family, name, manifest, vector, images, expected = case
  tensors = fill(json.loads((_GOLDEN / f"{manifest}.manifest.json").read_text()))
  recorded = golden.load(vector)
  outputs = reference_forward(family, {"name": name}, tensors, recorded[images])
  logits = recorded[expected]
  np.testing.assert_allclose(
    outputs["logits"], logits, rtol=0, atol=TOLERANCE * np.abs(logits).max()
  )
  if family == "reco":
    some = outputs["embedding"][:, :: recorded["rep_channel_stride"]]
    atol = TOLERANCE * np.abs(some).max()
    np.testing.assert_allclose(some, recorded["rep_subset"], rtol=0, atol=atol)
