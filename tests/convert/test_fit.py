"""A trunk is filled whole or not at all, and a file is taken whole; what stays fresh is counted."""

import pytest

from semiseg_jax import networks
from semiseg_jax.convert import families
from semiseg_jax.convert.assign import tensors_of
from semiseg_jax.convert.report import summary
from semiseg_jax.convert.weights import Weights, completed, convert, describe, fit
from tests.convert.test_assign import DPT, SMALL, VIT, make, state_of

NAMES = {"torchvision_resnet": "resnet", "torchvision_densenet": "densenet"}


def of_trunk(family: str, **trunk) -> Weights:
  """Weights whose file holds such a trunk."""
  plain = {"name": NAMES.get(family), "trunk": {"width": 4, **trunk}}
  described = plain if family in NAMES else {**DPT, "trunk": {**VIT, **trunk}}
  tensors, layout = state_of(family, **described), families.named(family)
  return Weights(tensors, layout, describe(layout, tensors, {}), {})


def into(weights: Weights, **trunk):
  """What becomes of them in a DeepLab on another trunk."""
  known = VIT if trunk["name"].startswith("dinov2") else {"width": 4}
  model = completed({**SMALL, "name": "deeplabv3p", "num_classes": 5, "trunk": {**known, **trunk}})
  variables, _ = networks.build(model, seed=1)
  return fit(weights, variables, model)


RESNET, DENSENET, ENCODER = "torchvision_resnet", "torchvision_densenet", "dinov2"
LARGER = [  # layout, a trunk, and one that has the same arrays and more
  (RESNET, {"name": "resnet18"}, {"name": "resnet34"}),
  (RESNET, {"name": "resnet50"}, {"name": "resnet101"}),
  (ENCODER, {"name": "dinov2_small", "depth": 4}, {"name": "dinov2_small", "depth": 6}),
  (ENCODER, {"name": "dinov2_small", "depth": 4}, {"name": "dinov2_small_reg", "depth": 4}),
]


@pytest.mark.parametrize(("family", "less", "more"), LARGER)
def test_a_trunk_of_another_depth_is_refused(family, less, more):
  """A smaller one's file would leave blocks random, a larger one's would be used in part."""
  key = next(key for key in more if more[key] != less[key])
  small, large = f"{key}={less[key]!r}", f"{key}={more[key]!r}"
  taps = {"taps": (0, 1, 2, 3)} if "depth" in less else {}
  line = r"fills the trunk in part: \d+ of its \d+ arrays are not there \(trunk\..*"
  with pytest.raises(ValueError, match=line + rf"trunk has {large}, the file's has {small}: make"):
    into(of_trunk(family, **less), **more, **taps)
  line = r"more than the network takes: \d+ tensors without use \(.*"
  with pytest.raises(ValueError, match=line + rf"trunk has {small}, the file's has {large}: make"):
    into(of_trunk(family, **more), **less, **taps)


def test_a_trunk_of_another_size_is_refused():
  line = r"config\.model\.trunk has name='{}', .*the file's has name='{}'"
  for family, there, here in (
    (RESNET, "resnet18", "resnet50"),
    (RESNET, "resnet50", "resnet34"),
    (DENSENET, "densenet121", "densenet169"),
  ):
    with pytest.raises(ValueError, match=line.format(here, there)):
      into(of_trunk(family, name=there), name=here)
  with pytest.raises(ValueError, match=r"config\.model\.trunk has heads=2, the file's has heads=1"):
    into(of_trunk(ENCODER, name="dinov2_small"), name="dinov2_small", heads=2)


def test_a_trunk_that_is_not_whole_is_refused():
  weights = of_trunk(RESNET, name="resnet18")
  del weights.tensors["layer3.1.conv2.weight"], weights.tensors["bn1.bias"]
  line = r"2 of its 100 arrays are not there \(trunk\.bn1\.bias, trunk\.layer3\.1\.conv2\.kernel\)"
  with pytest.raises(ValueError, match=line + ": it is damaged, or of another trunk"):
    into(weights, name="resnet18")
  with pytest.raises(ValueError, match=line):
    convert(weights)


def test_what_stays_fresh_and_what_has_no_use_is_counted_by_part():
  _, report = into(of_trunk(RESNET, name="resnet18"), name="resnet18")
  assert summary(report) == (
    "100 tensors taken, 2 without use (fc 2), 42 arrays of the network stay fresh: ASPP 30, "
    "classifier 7, project 5"
  )


def test_a_head_of_its_own_is_no_matter_of_the_trunk():
  """DPT's file, trunk and decoder, under another decoder, whichever blocks are tapped."""
  _, variables = make("unimatch_v2")
  layout = families.named("unimatch_v2")
  tensors = tensors_of(layout, variables)
  weights = Weights(tensors, layout, describe(layout, tensors, {}), {})
  _, report = into(weights, name="dinov2_small", taps=(1, 3))
  assert not any(path.startswith("trunk.") for path, _ in report.fresh)
  assert {key.partition(".")[0] for key, *_ in report.left} == {"head"}
