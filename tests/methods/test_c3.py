"""C3-SemiSeg: steps and whole epochs of the original, replayed from their recorded draws."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict
from jax.sharding import PartitionSpec as P

from semiseg_jax.augment.mix import aspect_boxes
from semiseg_jax.contract import Facts, TrainState
from semiseg_jax.methods import c3
from semiseg_jax.models.layers import BatchNorm, Conv, Maker
from semiseg_jax.models.network import Outputs, Segmenter, Variables, split_network
from semiseg_jax.models.normalization import Normalization
from semiseg_jax.models.projection import PROJECTIONS
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import gradients, make_train_step
from tests import golden
from tests.golden import nhwc
from tests.losses.replay import recorded_permutations, replayed_priorities
from tests.models.torch_layout import to_trees

COMMON = {
  "unlabeled_start": 2, "consistency_ramp": 2, "contrast_ramp": 2, "pixels": 3, "embedding_dim": 8,
  "threshold_decay": 0.1,
}  # fmt: skip
SMALL = {
  "cross_set": COMMON,
  "cross_model": {**COMMON, "contrast": "cross_model", "kld_weight": 0.1, "head": "aspp"},
  "within": {**COMMON, "mixing": "within", "contrast": None, "true_labels_only": True},
  "unmixed": {**COMMON, "mixing": None, "contrast": "labeled", "thresholds": False},
  "supervised": {**COMMON, "unlabeled_start": None},
}
LOSS = {"rtol": 1e-5, "atol": 1e-6}
GRADIENT = {"rtol": 1e-4, "atol": 1e-6}
STATE = {"rtol": 0, "atol": 1e-4}  # as the vector's own description has it
FLAGS = {  # of the recorded steps
  "cross_set_mask": {},
  "cross_set": {},
  "labeled_only": {"contrast": "labeled"},
  "cross_model": {"contrast": "cross_model"},
  "cross_set_no_cb": {"thresholds": False},
  "cross_set_random_sample": {"mining": False},
  "plain_kld": {"contrast": None, "thresholds": False, "kld_weight": 0.1},
  "no_cutmix_mask_unlabel": {"contrast": None, "mixing": None, "true_labels_only": True},
  "cutmix_ablation": {"contrast": None, "mixing": "within"},
}


class Replay:
  """The draws of a step, which the compiled step asks for when it runs."""

  def __init__(self, monkeypatch, permutations):
    self.permutations, self.order, self.boxes = permutations, None, None
    loss = c3.pixel_contrast_loss

    def order(key, images):
      return jax.pure_callback(lambda: self.order, jax.ShapeDtypeStruct((images,), np.int32))

    def boxes(keys, shape):
      like = jax.ShapeDtypeStruct((len(keys), 3), np.float32)
      draws = jax.pure_callback(lambda: self.boxes, like)
      return aspect_boxes(0.5, draws[:, 0], draws[:, 1:], shape)

    def priorities(labels, guess, rank, *, pixels, mining):
      place = np.argsort(rank)
      flat = lambda x: np.asarray(x).reshape(len(place), -1)[place]
      drawn = replayed_priorities(
        self.permutations, flat(labels), flat(guess) if mining else None, pixels
      )
      return drawn[np.asarray(rank) - rank.min()]

    def contrast(embedding, labels, guess, other, *, key, image_rank, num_pixels, **options):
      like = jax.ShapeDtypeStruct((len(labels), labels[0].size), np.int32)
      ask = lambda *args: priorities(*args, pixels=num_pixels, mining=guess is not None)
      drawn = jax.pure_callback(ask, like, labels, labels if guess is None else guess, image_rank)
      return loss(
        embedding, labels, guess, other, priorities=drawn, num_pixels=num_pixels, **options
      )

    monkeypatch.setattr(c3, "draw_order", order)
    monkeypatch.setattr(c3, "draw_aspect_boxes", boxes)
    monkeypatch.setattr(c3, "pixel_contrast_loss", contrast)


class Given:
  """What a network says, given in advance by images of channel 2, and its head."""

  def encode(self, params, stats, images, train, keys=None):
    return (images, params["layer4"][: len(images)]), stats

  def decode(self, params, stats, features, size, train, keys=None):
    if "noise" not in params:
      return Outputs(params["logits"]), stats
    # the branch of labelled images alone, which does not run here, has fewer
    given = {name: params[name][: len(features[0])] for name in ("noise", "strength", "logits")}
    which = jnp.clip(jnp.round(features[0][..., 2]), 0, 18).astype(jnp.int32)
    shown = given["strength"] * jax.nn.one_hot(which, given["noise"].shape[-1])
    return Outputs(jax.lax.stop_gradient(given["noise"] + shown) + given["logits"]), stats

  def resize(self, logits, size):
    return logits

  def apply(self, params, stats, function):
    conv = lambda x, name: x @ params[name]["kernel"][0, 0] + params[name]["bias"]

    def projection(features, train, keys):
      return conv(nnx.relu(conv(features[-1], "conv_1")), "conv_2")

    return function(types.SimpleNamespace(projection=projection)), stats


def head_of(case, prefix):
  keys = {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
  return to_trees(keys)[0]


@pytest.mark.parametrize("flags", FLAGS)
@golden.cases("c3_semiseg/semi_step*")
def test_recorded_step(case, flags, monkeypatch):
  names = (
    "pixels", "temperature", "end_percent", "gamma", "gpus", "epoch", "unlabeled", "contrast",
    "ramp", "contrast_ramp", "weight", "contrast_weight", "iteration", "number",
  )  # fmt: skip
  p = dict(zip(names, case["params"].tolist(), strict=True))
  gpus = int(p["gpus"])
  start = lambda epoch: int((epoch - 1) * p["epoch"]) // gpus
  method = c3.Method(
    **{
      "pixels": int(p["pixels"]), "temperature": p["temperature"], "end_percent": p["end_percent"],
      "gamma": p["gamma"], "gpus": gpus, "unlabeled_start": start(p["unlabeled"]),
      "contrast_start": start(p["contrast"]), "consistency_ramp": p["ramp"] / gpus,
      "contrast_ramp": p["contrast_ramp"] / gpus, "consistency_weight": p["weight"],
      "contrast_weight": p["contrast_weight"], **FLAGS[flags],
    }
  )  # fmt: skip
  prefix = f"{flags}__"
  replay = Replay(monkeypatch, recorded_permutations(case, prefix))
  images = len(case["labeled_image"]) + len(case["weak_image"])
  if flags != "cutmix_ablation":
    replay.order = np.int32(next(replay.permutations))
  if f"{prefix}cutmix_draw1" in case:
    draws = [case[f"{prefix}cutmix_draw1"], case[f"{prefix}cutmix_draw2"][:, 0]]
    replay.boxes = np.float32(np.concatenate(draws, axis=1))
  # what is given is in the order of the original's mixed batch
  given = np.arange(images)
  if method.mixing is None:
    given = np.argsort(replay.order)
  elif method.mixing == "within":
    given = given.reshape(2, 2, -1).swapaxes(0, 1).reshape(-1)
  student = {
    "noise": nhwc(case["student_noise"])[given], "strength": nhwc(case["student_strength"])[given],
    "layer4": nhwc(case["student_layer4_given"])[given], **head_of(case, "student_head.emb_1."),
  }  # fmt: skip
  student["logits"] = np.zeros_like(student["noise"])
  teacher = {
    "logits": nhwc(case["teacher_logits"]), "layer4": nhwc(case["teacher_layer4"]),
    **head_of(case, "teacher_head.emb_1."),
  }  # fmt: skip
  classes = student["noise"].shape[-1]
  step = int(p["iteration"]) // gpus - 1
  facts = Facts(classes, step + 1, images, images, images // 2, images // 2)
  networks = {"student": Variables(student, {}), "teacher": Variables(teacher, {})}
  state = TrainState(
    np.int32(step), networks, None, jnp.full(classes, 0.9), jax.random.PRNGKey(0),
    FrozenDict(dict.fromkeys(networks, Given())), facts,
  )  # fmt: skip
  place = np.arange(images // 2, dtype=np.int32)
  batch = {
    "labeled": {"image": nhwc(case["labeled_image"]), "label": golden.known(case["labeled_target"]),
                "position": place},
    "unlabeled": {"image": nhwc(case["weak_image"]), "strong": nhwc(case["strong_image"]),
                  "label": golden.known(case["unlabeled_target"]), "position": place},
  }  # fmt: skip
  run = jax.jit(
    jax.shard_map(
      lambda state, batch: gradients(state, batch, state.rng, method),
      mesh=make_mesh(jax.devices()[:1]), in_specs=P(), out_specs=P(),
    )
  )  # fmt: skip
  after, grads, aux = run(state, batch)
  ours = {"sup": "supervised_loss", "consist": "consistency_loss", "sup_c": "contrast_loss",
          "kld": "kld_loss"}  # fmt: skip
  for theirs, name in ours.items():
    if (key := f"{prefix}loss_{theirs}_loss") in case:
      np.testing.assert_allclose(aux.metrics[name], case[key], **LOSS, err_msg=name)
  np.testing.assert_allclose(aux.metrics["loss"], case[f"{prefix}total"], **LOSS)
  if f"{prefix}thresholds_after" in case:
    np.testing.assert_allclose(after.method_state, case[f"{prefix}thresholds_after"], atol=1e-6)
  grad, back = grads["student"], np.argsort(given)
  logits = np.moveaxis(np.asarray(grad["logits"]), -1, 1)[back]
  strided = case[f"{prefix}grad_student_logits_strided"]
  np.testing.assert_allclose(logits[:, ::3, 1::3, 1::3], strided, **GRADIENT)
  total = case[f"{prefix}grad_student_logits_abs_sum"]
  np.testing.assert_allclose(np.abs(logits).sum(), total, rtol=1e-4)
  if f"{prefix}grad_student_layer4" in case:
    layer4 = np.moveaxis(np.asarray(grad["layer4"]), -1, 1)[back]
    np.testing.assert_allclose(layer4, case[f"{prefix}grad_student_layer4"], **GRADIENT)
  for key in case:
    if key.startswith(head := f"{prefix}grad_head.emb_1."):
      conv, leaf = key.removeprefix(head).split(".")
      found = grad[conv][{"weight": "kernel"}.get(leaf, leaf)]
      expected = case[key].transpose(2, 3, 1, 0) if leaf == "weight" else case[key]
      np.testing.assert_allclose(found, expected, **GRADIENT)


class MiniNet(Segmenter):
  """The network of the recorded epochs."""

  def __init__(self, features: int, num_classes: int, dim: int, maker: Maker):
    self.conv_a = Conv(3, features, 3, rng=maker.rng, stride=2, padding=1)
    self.bn = BatchNorm(features, trained=False)
    self.conv_b = Conv(features, num_classes, 1, rng=maker.rng, use_bias=True)
    self.projection = PROJECTIONS["projection_mlp"]((features,), dim, maker)

  def encode(self, images, train, keys=None):
    return (nnx.relu(self.bn(self.conv_a(images), False)),)

  def decode(self, features, size, train, keys=None):
    return Outputs(self.conv_b(features[-1]))


def mini_variables(case, model: str, head: str) -> dict:
  params, batch_stats = to_trees(
    {k.removeprefix(model): v for k, v in case.items() if k.startswith(model)}
  )
  params["projection"] = head_of(case, f"{head}module.emb_1.")
  return {"params": params, "batch_stats": batch_stats}


@golden.cases("c3_semiseg/mini_run*")
def test_recorded_epochs(case, monkeypatch, request):
  name = request.node.callspec.id
  p = golden.load_json(f"c3_semiseg/{name}.params.json")
  each, gpus = p["I"] // p["world"], p["world"]
  method = c3.Method(
    unlabeled_start=(p["ul"] - 1) * each, contrast_start=(p["cs"] - 1) * each, gpus=gpus,
    consistency_ramp=p["ramp"] / gpus, contrast_ramp=p["cramp"] / gpus, pixels=p["V"],
    consistency_weight=p["cw"], contrast_weight=p["clw"], temperature=p["tau"],
    end_percent=p["ep"], gamma=p["gamma"], ema_decay=p["alpha"], embedding_dim=p["D"],
  )  # fmt: skip
  classes = len(case["initial__model.conv_b.bias"])
  identity = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
  _, network = split_network(
    MiniNet(p["F"], classes, p["D"], Maker(np.random.default_rng(0))), identity
  )
  start = Variables(**mini_variables(case, "initial__model.", "initial__head."))
  steps = p["E"] * each
  config = {
    "name": "adam", "learning_rate": p["lr"], "groups": (("^conv_a", 0.1, None, 3),),
    "schedule": {"name": "poly", "first": 1, "steps_per_epoch": 1, "floor": 0.0},
  }  # fmt: skip
  optimizer = make_optimizer(config, steps, {"student": network})
  facts = Facts(classes, steps, 8, 8, p["B"], p["B"])
  mesh = make_mesh(jax.devices()[:1])
  state = make_state(Start(start, network, None), method, optimizer, facts, 0, mesh)
  replay = Replay(monkeypatch, recorded_permutations(case))
  step = make_train_step(method, optimizer, mesh)
  boxes = np.concatenate([case["cutmix_draw_aspect"], case["cutmix_draw_position"][:, :, 0]], -1)
  replay.order, replay.boxes = np.arange(2 * p["B"], dtype=np.int32), np.float32(boxes[0])
  for number in range(steps):
    epoch, turn = number // each + 1, number % each
    level = lambda what, epoch=epoch, turn=turn: np.float32(
      nhwc(case.get(f"{what}_image_epoch{epoch}_f16", case["labeled_image_epoch1_f16"])[turn])
    )
    target = lambda what, epoch=epoch, turn=turn: golden.known(
      case.get(f"{what}_target_epoch{epoch}", case["labeled_target_epoch1"])[turn]
    )
    place = np.arange(p["B"], dtype=np.int32)
    batch = {
      "labeled": {"image": level("labeled"), "label": target("labeled"), "position": place},
      "unlabeled": {"image": level("unlabeled"), "strong": level("strong"),
                    "label": target("unlabeled"), "position": place},
    }  # fmt: skip
    if number >= method.unlabeled_start:
      replay.order = np.int32(next(replay.permutations))
      replay.boxes = np.float32(boxes[number - method.unlabeled_start])
    asked = jax.tree.map(np.array, state.networks["teacher"])
    state, metrics = step(state, batch)
    metrics = jax.tree.map(np.asarray, metrics)
    columns = ("loss", "supervised_loss", "contrast_loss", "consistency_loss")
    found = np.nan_to_num([metrics[column] for column in columns])
    np.testing.assert_allclose(found, case["steps"][number, 2:6], rtol=1e-4, atol=1e-5)
    if number >= method.unlabeled_start:
      expected = case["thresholds_after_step"][number]
      np.testing.assert_allclose(metrics["thresholds"], expected, atol=1e-5)
    if turn == each - 1:
      for own, prefix in ((state.networks["student"], ("model", "head")),
                          (asked, ("teacher", "teacher_head"))):  # fmt: skip
        if prefix[0] == "teacher" and epoch < p["ul"]:
          continue  # theirs has a head of its own until it copies the student
        model, head = (f"after_epoch{epoch}__{part}." for part in prefix)
        for path, leaf in jax.tree.leaves_with_path(mini_variables(case, model, head)["params"]):
          ours = own.params
          for entry in path:
            ours = ours[entry.key]
          np.testing.assert_allclose(ours, leaf, **STATE, err_msg=f"{epoch} {prefix} {path}")
  assert next(replay.permutations, None) is None
  assert step._cache_size() == 1


@golden.cases("c3_semiseg/schedules*", holding="calendar")
def test_weights_and_the_teachers_decay(case):
  gpus, each, epochs, unlabeled, contrast, ramp, contrast_ramp, decay, weight, contrast_weight = (
    case["calendar_params"].tolist()
  )
  start = lambda epoch: int((epoch - 1) * each / gpus)
  method = c3.Method(
    unlabeled_start=start(unlabeled), contrast_start=start(contrast), gpus=int(gpus),
    consistency_ramp=ramp / gpus, contrast_ramp=contrast_ramp / gpus, ema_decay=decay,
    consistency_weight=weight, contrast_weight=contrast_weight,
  )  # fmt: skip
  assert len(case["calendar"]) == epochs * each / gpus
  for step, (_, _, action, alpha, of_contrast, of_consistency) in enumerate(case["calendar"]):
    state = types.SimpleNamespace(step=jnp.int32(step))
    np.testing.assert_allclose(
      method.contrast_weight * method.contrast_rise(state), of_contrast, rtol=1e-5
    )
    found = method.consistency_weight * method.consistency_rise(state)
    np.testing.assert_allclose(found if action else 0.0, of_consistency, rtol=1e-5)
    if action:
      expected = 0.0 if action == 1 else alpha
      np.testing.assert_allclose(method.teacher_decay(jnp.int32(step)), expected, rtol=1e-6)
    else:
      assert method.teacher_decay(jnp.int32(step)) == 1.0


def flattened(names, vector):
  """{name: array} of PyTorch's tensors, laid out one behind the other."""
  found, start = {}, 0
  for name, shape in names.items():
    size = int(np.prod(shape, dtype=int))
    found[name] = jnp.asarray(vector[start : start + size])
    start += size
  return found


@golden.cases("c3_semiseg/ema*", holding="params")
def test_recorded_teacher(case):
  layout = golden.load_json("c3_semiseg/ema.layout.json")
  gpus, each, unlabeled, decay, _ = case["params"].tolist()
  start = int((unlabeled - 1) * each / gpus)
  parts = {"": layout["student_and_teacher"], "embed": layout["embed"]}

  def variables(prefix, who, row=()):
    network, head = (f"{prefix}__{who}", f"{prefix}__embed{'_t' if who == 'teacher' else ''}")
    if row == ():
      network, head = f"{network}_initial", f"{head}_initial"
    own = flattened(parts[""], case[network][row])
    own |= {f"embed.{k}": v for k, v in flattened(parts["embed"], case[head][row]).items()}
    own.pop("1.num_batches_tracked")
    stats = {name: own.pop(name) for name in list(own) if "running" in name}
    return Variables(own, stats)

  for prefix, ema_decay in (("ema", decay), ("copy", None)):
    method = c3.Method(unlabeled_start=start, gpus=int(gpus), ema_decay=ema_decay)
    teacher = variables(prefix, "teacher")
    for row, count in enumerate(case[f"{prefix}__iters"].tolist()):
      networks = {"student": variables(prefix, "student", row), "teacher": teacher}
      # the state of the step before, of which the original speaks at this one's beginning
      state = TrainState(count / gpus - 2, networks, None, None, None, FrozenDict(), None)
      teacher = method.after(state, None).networks["teacher"]
      wanted = variables(prefix, "teacher", row)
      close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
      jax.tree.map(close, teacher, wanted)
