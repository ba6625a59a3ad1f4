"""The originals' networks in evaluation, in PyTorch, straight from their state dicts.

Written from the description of each layout, apart from our tables of keys and from our networks, so
that a mistake there shows as a difference here. Functions of arrays and keys, no modules.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from semiseg_jax.convert.files import needed

_EPSILON = 1e-5


def reference_forward(
  family: str, model: Mapping[str, Any], tensors: Mapping[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
  """logits, and embedding and aux_logits where the family has them, [B,C,h,w] at its stride.

  family: by its name. model: name tells layouts of the same keys apart. tensors: the whole state
  dict, without prefixes of wrappers. images: [B,3,H,W] float32, normalised. Raises ImportError
  without torch.
  """
  torch = needed("torch")
  floats = {k: x for k, x in tensors.items() if x.dtype == np.float32}
  net = _Layers({key: torch.from_numpy(np.array(x)) for key, x in floats.items()})
  with torch.inference_mode():
    outputs = _FORWARDS[family](net, model, torch.from_numpy(np.array(images)))
  return {name: output.numpy() for name, output in outputs.items()}


class _Layers:
  """Layers by the keys of a state dict."""

  def __init__(self, tensors: Mapping[str, Any]):
    self.tensors = tensors
    self.functional = needed("torch").nn.functional

  def has(self, layer: str) -> bool:
    return f"{layer}.weight" in self.tensors

  def conv(self, x, layer: str, stride: int = 1, dilation: int = 1):
    weight, bias = self.tensors[f"{layer}.weight"], self.tensors.get(f"{layer}.bias")
    padding = dilation * (weight.shape[-1] // 2)
    groups = x.shape[1] // weight.shape[1]
    return self.functional.conv2d(x, weight, bias, stride, padding, dilation, groups)

  def norm(self, x, layer: str):
    names = ("running_mean", "running_var", "weight", "bias")
    arrays = (self.tensors[f"{layer}.{name}"] for name in names)
    return self.functional.batch_norm(x, *arrays, training=False, eps=_EPSILON)

  def conv_norm_relu(self, x, conv: str, norm: str, stride: int = 1, dilation: int = 1):
    return self.norm(self.conv(x, conv, stride, dilation), norm).relu()

  def resized(self, x, like):
    return self.functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


def _trunk(
  net, images, prefix, strides, dilations, *,
  stem=("conv1", "bn1"), in_1x1=False, all_dilated=False, ceil=False,
):  # fmt: skip
  """The outputs of the four stages.

  strides, dilations: of each. stem: names of its layers. in_1x1: a bottleneck's stride is in its
  first convolution. all_dilated: a stage's first block too has the stage's dilation, else that of
  the stage before.
  """
  if net.has("conv1.0"):  # PyTorch-Encoding's stem
    x = net.conv_norm_relu(images, "conv1.0", "conv1.1", stride=2)
    x = net.conv_norm_relu(net.conv_norm_relu(x, "conv1.3", "conv1.4"), "conv1.6", "bn1")
  else:
    x = net.conv_norm_relu(images, *(f"{prefix}{name}" for name in stem), stride=2)
  x = net.functional.max_pool2d(x, 3, 2, 1, ceil_mode=ceil)
  stages, before = [], 1
  for number, (stride, dilation) in enumerate(zip(strides, dilations, strict=True), start=1):
    stage = f"{prefix}layer{number}"
    blocks = {m[1] for k in net.tensors if (m := re.match(rf"{re.escape(stage)}\.(\d+)\.", k))}
    for block in range(len(blocks)):
      is_first = block == 0
      rate = before if is_first and not all_dilated else dilation
      x = _block(net, x, f"{stage}.{block}", stride if is_first else 1, rate, dilation, in_1x1)
    before = dilation
    stages.append(x)
  return stages


def _block(net, x, name, stride, rate, dilation, in_1x1):
  """A bottleneck, or a basic block where there is no third convolution."""
  shortcut = x
  if net.has(f"{name}.downsample.0"):
    shortcut = net.norm(net.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
  if net.has(f"{name}.conv3"):
    first, second = (stride, 1) if in_1x1 else (1, stride)
    y = net.conv_norm_relu(x, f"{name}.conv1", f"{name}.bn1", first)
    y = net.conv_norm_relu(y, f"{name}.conv2", f"{name}.bn2", second, rate)
    y = net.norm(net.conv(y, f"{name}.conv3"), f"{name}.bn3")
  else:
    y = net.conv_norm_relu(x, f"{name}.conv1", f"{name}.bn1", stride, rate)
    y = net.norm(net.conv(y, f"{name}.conv2", 1, dilation), f"{name}.bn2")
  return (y + shortcut).relu()


_STRIDE_8 = {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
_STRIDE_16 = {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}


def _pyramid(net, x, branches, pooled, project, rates):
  """ASPP: branches (conv, norm) of these rates, one of the pooled image, and their projection."""
  outputs = [
    net.conv_norm_relu(x, conv, norm, dilation=rate)
    for (conv, norm), rate in zip(branches, rates, strict=True)
  ]
  mean = net.conv_norm_relu(x.mean((2, 3), keepdim=True), *pooled)
  outputs.append(mean.expand(-1, -1, *x.shape[2:]))
  return net.conv_norm_relu(needed("torch").cat(outputs, 1), *project)


def _torchvision_pyramid(net, x, prefix, rates):
  part = lambda number, first=0: (
    f"{prefix}.convs.{number}.{first}",
    f"{prefix}.convs.{number}.{first + 1}",
  )
  branches, project = [part(i) for i in range(4)], (f"{prefix}.project.0", f"{prefix}.project.1")
  return _pyramid(net, x, branches, part(4, 1), project, (1, *rates))


def _dilated_sum(net, x, layer, count):
  """DeepLabV2's classifier: its first branches added up."""
  return sum(net.conv(x, f"{layer}.{i}", 1, rate) for i, rate in enumerate((6, 12, 18, 24)[:count]))


def _torchvision_resnet(net, model, images):
  x = _trunk(net, images, "", (1, 2, 2, 2), (1, 1, 1, 1))[-1].mean((2, 3))
  logits = net.functional.linear(x, net.tensors["fc.weight"], net.tensors["fc.bias"])
  return {"logits": logits[:, :, None, None]}


def _torchvision_densenet(net, model, images):
  def dense(x, layer):
    y = net.conv(net.norm(x, f"{layer}.norm1").relu(), f"{layer}.conv1")
    y = net.conv(net.norm(y, f"{layer}.norm2").relu(), f"{layer}.conv2")
    return needed("torch").cat([x, y], 1)

  x = net.conv_norm_relu(images, "features.conv0", "features.norm0", stride=2)
  x = net.functional.max_pool2d(x, 3, 2, 1)
  for block in range(1, 5):
    layer = 1
    while net.has(f"features.denseblock{block}.denselayer{layer}.conv1"):
      x = dense(x, f"features.denseblock{block}.denselayer{layer}")
      layer += 1
    if block < 4:
      name = f"features.transition{block}"
      x = net.conv(net.norm(x, f"{name}.norm").relu(), f"{name}.conv")
      x = net.functional.avg_pool2d(x, 2, 2)
  x = net.norm(x, "features.norm5").relu().mean((2, 3))
  logits = net.functional.linear(x, *(net.tensors[f"classifier.{n}"] for n in ("weight", "bias")))
  return {"logits": logits[:, :, None, None]}


def _torchvision_vgg(net, model, images):
  x, i = images, 0
  for depth in (2, 2, 3, 3, 3):
    for _ in range(depth):
      x = net.conv(x, f"features.{i}")
      if f"features.{i + 1}.running_mean" in net.tensors:
        i += 1
        x = net.norm(x, f"features.{i}")
      x, i = x.relu(), i + 2
    x, i = net.functional.max_pool2d(x, 2, 2), i + 1
  x = net.functional.adaptive_avg_pool2d(x, 7).flatten(1)
  for name in ("classifier.0", "classifier.3", "classifier.6"):
    x = x if name == "classifier.0" else x.relu()
    x = net.functional.linear(x, net.tensors[f"{name}.weight"], net.tensors[f"{name}.bias"])
  return {"logits": x[:, :, None, None]}


def _torchvision_deeplabv3(net, model, images):
  *_, middle, high = _trunk(net, images, "backbone.", **_STRIDE_8)
  x = _torchvision_pyramid(net, high, "classifier.0", (12, 24, 36))
  x = net.conv_norm_relu(x, "classifier.1", "classifier.2")
  outputs = {"logits": net.conv(x, "classifier.4")}
  if net.has("aux_classifier.0"):
    x = net.conv_norm_relu(middle, "aux_classifier.0", "aux_classifier.1")
    outputs["aux_logits"] = net.conv(x, "aux_classifier.4")
  return outputs


def _advsemiseg(net, model, images):
  if model["name"] == "deeplabv2_coco":
    return _memory_bank(net, model, images)
  high = _trunk(net, images, "", **_STRIDE_8)[-1]  # the same weights as DST-CBC runs them
  return {"logits": _dilated_sum(net, high, "layer5.conv2d_list", 2)}


def _dst_cbc(net, model, images):
  high = _trunk(net, images, "backbone.", **_STRIDE_8)[-1]
  return {"logits": _dilated_sum(net, high, "classifier.0.convs", 2)}


def _reco(net, model, images):
  if net.has("ASPP.project.0"):
    return _reco_v3(net, model, images)
  high = _trunk(net, images, "resnet_", **_STRIDE_8)[-1]
  count = model.get("classifier_branches") or 4
  outputs = {"logits": _dilated_sum(net, high, "classifier.conv2d_list", count)}
  if net.has("representation.0"):
    outputs["embedding"] = net.conv(high, "representation.0")
  return outputs


def _reco_v3(net, model, images):
  is_fine = model.get("output_stride") == 8
  strides = _STRIDE_8 if is_fine else _STRIDE_16
  low, _, _, high = _trunk(net, images, "resnet_", **strides)
  x = _torchvision_pyramid(net, high, "ASPP", (12, 24, 36) if is_fine else (6, 12, 18))
  low = net.conv_norm_relu(low, "project.0", "project.1")
  x = needed("torch").cat([low, net.resized(x, low)], 1)
  head = lambda name: net.conv(net.conv_norm_relu(x, f"{name}.0", f"{name}.1"), f"{name}.3")
  outputs = {"logits": head("classifier")}
  if net.has("representation.3"):
    outputs["embedding"] = head("representation")
  return outputs


def _memory_bank(net, model, images):
  if net.has("aspp.conv1"):
    return _memory_bank_v3(net, images)
  is_coco = model["name"] == "deeplabv2_coco"
  layout = {"in_1x1": is_coco, "ceil": is_coco, "all_dilated": True}
  high = _trunk(net, images, "", **_STRIDE_8, **layout)[-1]
  return {"logits": _dilated_sum(net, high, "layer5.conv2d_list", 2)}


def _memory_bank_v3(net, images):
  low, _, _, high = _trunk(net, images, "", **_STRIDE_16, all_dilated=True)
  branches = [(f"aspp.aspp{i}.atrous_conv", f"aspp.aspp{i}.bn") for i in range(1, 5)]
  pooled = ("aspp.global_avg_pool.1", "aspp.global_avg_pool.2")
  x = _pyramid(net, high, branches, pooled, ("aspp.conv1", "aspp.bn1"), (1, 6, 12, 18))
  low = net.conv_norm_relu(low, "decoder.conv1", "decoder.bn1")
  x = needed("torch").cat([net.resized(x, low), low], 1)
  for conv, norm in ((0, 1), (3, 4)):
    layers = (f"decoder.pre_last_conv.{number}" for number in (conv, norm))
    x = net.conv_norm_relu(x, *layers)
  return {"logits": net.conv(x, "decoder.last_conv")}


def _c3_deeplabv2(net, model, images):
  layout = {"in_1x1": True, "ceil": True, "all_dilated": True}
  high = _trunk(net, images, "body.", **_STRIDE_8, **layout)[-1]
  return {"logits": _dilated_sum(net, high, "decoder.conv2d_list", 2)}


def _c3_deeplabv3plus(net, model, images):
  strides = _STRIDE_8 if model.get("output_stride") == 8 else _STRIDE_16
  layout = {"stem": ("layer0.0", "layer0.1"), "all_dilated": True}
  low, _, _, high = _trunk(net, images, "backbone.", **strides, **layout)
  return _c3_decoder(net, model, low, high)


def _c3_decoder(net, model, low, high):
  rates = (12, 24, 36) if model.get("output_stride") == 8 else (6, 12, 18)
  branches = [(f"ASSP.aspp{i}.0", f"ASSP.aspp{i}.1") for i in range(1, 5)]
  pooled = ("ASSP.avg_pool.1", "ASSP.avg_pool.2")
  x = _pyramid(net, high, branches, pooled, ("ASSP.conv1", "ASSP.bn1"), (1, *rates))
  low = net.conv_norm_relu(low, "decoder.conv1", "decoder.bn1")
  x = needed("torch").cat([low, net.resized(x, low)], 1)
  for i in (0, 3):
    x = net.conv_norm_relu(x, f"decoder.output.{i}", f"decoder.output.{i + 1}")
  return {"logits": net.conv(x, "decoder.output.7")}


def _c3_xception(net, model, images):
  rate = 16 // model.get("output_stride", 16)
  x = net.conv_norm_relu(images, "backbone.conv1", "backbone.bn1", stride=2)
  x = low = _separable_block(net, net.norm(net.conv(x, "backbone.conv2"), "backbone.bn2"), 1, 2)
  blocks = {m[1] for k in net.tensors if (m := re.match(r"backbone\.block(\d+)\.", k))}
  for number in range(2, len(blocks) + 1):
    stride = {2: 2, 3: 2 // rate}.get(number, 1)
    x = _separable_block(net, x.relu(), number, stride, rate if number > 3 else 1)
  x = x.relu()
  for i in (3, 4, 5):
    x = net.norm(_separable(net, x, f"backbone.conv{i}", 1, 2 * rate), f"backbone.bn{i}").relu()
  return _c3_decoder(net, model, low, x)


def _separable_block(net, x, number, stride, dilation=1):
  """x: rectified, but for block 1, whose layers begin with the first convolution."""
  name, y = f"backbone.block{number}", x
  first = 0 if number == 1 else 1
  for i in (first, first + 3, first + 6):
    y = y if i == first else y.relu()
    y = _separable(net, y, f"{name}.rep.{i}", stride if i == first + 6 else 1, dilation)
    y = net.norm(y, f"{name}.rep.{i + 1}")
  if net.has(f"{name}.skip"):
    x = net.norm(net.conv(x, f"{name}.skip", stride), f"{name}.skipbn")
  return x + y


def _separable(net, x, name, stride, dilation):
  return net.conv(net.norm(net.conv(x, f"{name}.conv1", stride, dilation), f"{name}.bn"),
                  f"{name}.pointwise")  # fmt: skip


_FORWARDS = {
  "torchvision_resnet": _torchvision_resnet,
  "torchvision_densenet": _torchvision_densenet,
  "torchvision_vgg16": _torchvision_vgg,
  "torchvision_vgg16_bn": _torchvision_vgg,
  "torchvision_deeplabv3": _torchvision_deeplabv3,
  "advsemiseg": _advsemiseg,
  "reco": _reco,
  "memory_bank": _memory_bank,
  "dst_cbc": _dst_cbc,
  "c3_deeplabv2": _c3_deeplabv2,
  "c3_deeplabv3plus": _c3_deeplabv3plus,
  "c3_xception": _c3_xception,
}
