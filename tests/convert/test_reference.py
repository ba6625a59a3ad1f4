"""A second implementation, in PyTorch, gives what the originals gave, and what ours give."""

import re
from collections.abc import Iterator

import numpy as np
import pytest

from semiseg_jax.convert import families
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.weights import Weights, convert
from tests import golden
from tests.convert.recorded import (
  TOLERANCE,
  assert_close,
  forward,
  manifest_of,
  manifests,
  settings_of,
  weights_of,
)
from tests.convert.reference import reference_forward
from tests.convert.test_assign import DEEP_RESNET, MODELS, REPRESENTATION, SELECTORS, make

pytest.importorskip("torch")

_SOME = ("deeplabv3p", "deeplabv3plus", "deeplabv2_coco")  # one of each kind; the others are slow


def recorded_cases() -> Iterator:
  """(manifest, what it doesn't tell of the network, vector, keys of input and logits)."""
  for name, recorded in golden.vectors("reco/*", holding="rep_subset").items():
    if not recorded["train_mode"]:
      yield manifest_of("reco", name), settings_of(name, recorded), recorded, "input", "pred"
  for folder in ("memory_bank", "dst_cbc"):
    for name, recorded in golden.vectors(f"{folder}/*", holding="eval*[._]logits").items():
      logits = max(key for key in recorded if re.fullmatch(r"eval\d*[._]logits", key))
      images = logits.replace("logits", "input")
      yield manifest_of(folder, name), settings_of(name, recorded), recorded, images, logits
  (coco,) = (m for m in manifests("dst_cbc") if weights_of(m).family.name == "advsemiseg")
  for recorded in golden.vectors("dst_cbc/*", holding="advsemiseg_logits").values():
    yield coco, {"name": "deeplabv2"}, recorded, "input", "logits"
    yield coco, {"name": "deeplabv2_coco"}, recorded, "input", "advsemiseg_logits"


def parameter(case: tuple) -> object:
  manifest, known, *_ = case
  layout = known.get("name") or manifest.partition("/")[2]
  is_quick = any(re.match(rf"{name}(_|$)", layout) for name in _SOME)
  return pytest.param(
    *case, marks=() if is_quick else pytest.mark.slow, id=f"{manifest}-{case[-1]}"
  )


@pytest.mark.parametrize(
  ("manifest", "known", "recorded", "images", "expected"),
  [parameter(case) for case in recorded_cases()],
)
def test_recorded_outputs(manifest, known, recorded, images, expected):
  weights = weights_of(manifest, **known)
  outputs = reference_forward(weights.family.name, weights.model, weights.tensors, recorded[images])
  assert_close(outputs["logits"], recorded[expected])
  if "rep_subset" in recorded:
    some = outputs["embedding"][:, :: recorded["rep_channel_stride"]]
    assert_close(some, recorded["rep_subset"])


# Even, which tells layouts of the stem apart, and wide enough for the outermost dilation (36 at
# stride 8) to meet more than padding.
SIZE = (32, 304)
LAYOUTS = [
  *((name, {}) for name in MODELS if name != "semiseg_jax"),
  *((family, {"output_stride": 8}) for family in ("reco", "c3_deeplabv3plus", "c3_xception")),
  *(("reco", {"name": "deeplabv2", "classifier_branches": n, **REPRESENTATION}) for n in (2, 4)),
  ("advsemiseg", {"name": "deeplabv2", "classifier_branches": 2}),
  ("torchvision_resnet", {"name": "resnet", "trunk": DEEP_RESNET}),
  *(("memory_bank", {"name": f"deeplabv2_{kind}", **SELECTORS}) for kind in ("coco", "imagenet")),
]


def largest_difference(weights: Weights, theirs: dict[str, np.ndarray]) -> float:
  """Of a converted network's outputs from the reference's, as a share of the largest value."""
  family, images = weights.family.name, np.random.default_rng(0)
  images = images.standard_normal((1, 3, *SIZE), np.float32)
  expected = reference_forward(family, weights.model, theirs, images)
  ours = forward(convert(weights), images)[0]._asdict()
  assert set(expected) == {k for k in ("logits", "embedding", "aux_logits") if ours[k] is not None}
  share = lambda a, b: float(np.abs(a - b).max() / np.abs(b).max())
  return max(share(golden.nhwc(x), np.asarray(ours[name])) for name, x in expected.items())


def small(family: str, model: dict) -> Weights:
  made, variables = make(family, **model)
  layout = families.named(family)
  return Weights(layout.adapt(tensors_of(layout, variables)), layout, made, {})


@pytest.mark.parametrize(("family", "model"), LAYOUTS, ids=str)
def test_small_networks_compute_what_their_originals_do(family, model):
  weights = small(family, model)
  theirs = weights.family.restore(weights.tensors)
  assert largest_difference(weights, theirs) <= TOLERANCE


def test_swapped_tensors_do_not_go_unseen():
  weights = small("dst_cbc", {})
  one, other = (f"backbone.layer3.1.conv{i}.weight" for i in (1, 2))
  swapped = {one: weights.tensors[other], other: weights.tensors[one]}
  wrong = weights._replace(tensors={**weights.tensors, **swapped})
  assert largest_difference(wrong, weights.tensors) > 10 * TOLERANCE
