"""The families of PyTorch weights, a table each. A new network brings its own."""

from collections.abc import Mapping
from typing import Any

from semiseg_jax import fields
from semiseg_jax.convert.families import (
  advsemiseg,
  c3_deeplabv2,
  c3_deeplabv3plus,
  c3_xception,
  dinov2,
  dst_cbc,
  imagenet_xception,
  memory_bank,
  own,
  reco,
  torchvision_deeplabv3,
  torchvision_densenet,
  torchvision_resnet,
  torchvision_vgg,
  torchvision_vgg_bn,
  transformers_dinov2,
  unimatch_v2,
  zoo_duc_hdc,
  zoo_enet,
  zoo_fcn8,
  zoo_gcn,
  zoo_pspdensenet,
  zoo_pspnet,
  zoo_segnet,
  zoo_segnet_tied,
  zoo_segresnet,
  zoo_unet,
  zoo_unet_resnet,
  zoo_upernet,
)
from semiseg_jax.convert.family import Family

_MODULES = (  # ours is the last, as it holds every network
  torchvision_resnet, torchvision_densenet, torchvision_vgg, torchvision_vgg_bn, imagenet_xception,
  torchvision_deeplabv3, c3_deeplabv2, c3_deeplabv3plus, c3_xception, advsemiseg, reco, memory_bank,
  dst_cbc, zoo_duc_hdc, zoo_enet, zoo_fcn8, zoo_gcn, zoo_pspdensenet, zoo_pspnet, zoo_segnet,
  zoo_segnet_tied, zoo_segresnet, zoo_unet, zoo_unet_resnet, zoo_upernet,
  dinov2, transformers_dinov2, unimatch_v2, own,
)  # fmt: skip
FAMILIES: dict[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}
OWN = own.FAMILY


def named(name: str) -> Family:
  """Raises ValueError for a family that is not there."""
  if name not in FAMILIES:
    raise ValueError(f"family {name!r}: {fields.nearest(name, FAMILIES)}")
  return FAMILIES[name]


def is_known(tensors: Mapping[str, Any]) -> bool:
  """Whether some family has these keys."""
  return any(family.recognises(tensors) for family in FAMILIES.values())


def detect(tensors: Mapping[str, Any]) -> Family:
  """The one family whose keys these are; ValueError without one."""
  found = [family for family in FAMILIES.values() if family.recognises(tensors)]
  if len(found) != 1:
    raise ValueError(unknown(tensors))
  return found[0]


def unknown(tensors: Mapping[str, Any]) -> str:
  """What to say of keys that no family has."""
  some = ", ".join(list(tensors)[:3])
  return (
    f"the keys ({some}, ...) are those of no known family: one of {', '.join(FAMILIES)} can be "
    "named with --family"
  )
