"""ReCo: whole updates of the original scripts, replayed from their recorded draws.

The recorded runs are of a tiny network; the labelled crops came augmented, the unlabelled ones
plain. Every intermediate result of an update is compared, then the states after it.
"""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from semiseg_jax import contract
from semiseg_jax.augment import views
from semiseg_jax.augment.geometry import ScaleCrop
from semiseg_jax.augment.photometric import Blur, ColorJitter
from semiseg_jax.labels import IGNORE
from semiseg_jax.losses.pools import Draws
from semiseg_jax.methods import make_method, reco
from semiseg_jax.models.layers import Maker
from semiseg_jax.models.network import Variables, split_network
from semiseg_jax.runtime.mesh import make_mesh
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.start import Start
from semiseg_jax.training.state import make_state
from semiseg_jax.training.step import make_train_step
from tests import golden
from tests.losses.replay import labels_of, recorded_draws
from tests.models.torch_layout import to_trees
from tests.tiny import TinyNet, facts_of

LOSS = {"rtol": 1e-5}  # float32 losses
CONFIDENCE = {"atol": 1e-6}  # float32 probabilities
STATE = {"rtol": 1e-5, "atol": 2e-6}  # weights after a few updates in float32
MIXINGS = ("cutout", "cutmix", "classmix")
COMMON = {
  "num_queries": 8, "num_negatives": 16, "strong_threshold": 0.9, "weak_threshold": 0.2,
  "scale_range": (0.5, 1.5), "embedding_dim": 8,
}  # fmt: skip
SMALL = {
  "classmix": {**COMMON, "mixing": "classmix"},
  "supervised": {**COMMON, "mixing": None},
  "partial": {**COMMON, "mixing": "cutmix", "partial": True},
}


def uint8_labels(labels: np.ndarray) -> np.ndarray:
  return np.where(labels < 0, IGNORE, labels).astype(np.uint8)


def variables(case, prefix: str) -> Variables:
  torch = {k.removeprefix(prefix): v for k, v in case.items() if k.startswith(prefix)}
  return Variables(*to_trees(torch))


def method_of(case, name: str):
  config = {
    "name": "reco",
    "mixing": next((mixing for mixing in MIXINGS if mixing in name), None),
    "strong_threshold": float(case["strong_threshold"]),
    "temperature": float(case["temp"]),
    "num_queries": int(case["num_queries"]),
    "num_negatives": int(case["num_negatives"]),
    "scale_range": tuple(case["scale_range"].tolist()),
    "partial": "partial" in name,
  }
  if "weak_threshold" in case:
    config["weak_threshold"] = float(case["weak_threshold"])
  return make_method(config)


def batch_of(case, update: int) -> dict:
  def part(stream):
    image = golden.nhwc(case[f"{stream}_image_level"][update])
    return {
      "image": image,
      "label": uint8_labels(case[f"{stream}_label"][update]),
      "position": np.arange(len(image), dtype=np.int32),
    }

  batch = {"labeled": part("labelled")}
  return batch | {"unlabeled": part("unlabelled")} if "unlabelled_image_level" in case else batch


def contrast_draws(case, it: dict[str, np.ndarray]) -> Draws:
  """The queries and negatives of an update."""
  num_classes = int(case["num_classes"])
  reco = {k.removeprefix("reco_"): v for k, v in it.items() if k.startswith("reco_")}
  labels = labels_of(reco["label"], reco["mask"])
  valid_count = np.bincount(labels[labels != IGNORE], minlength=num_classes)
  sizes = {name: case[name] for name in ("num_queries", "num_negatives")}
  valid_count = {"valid_count": valid_count[reco["valid_classes"]]}
  return recorded_draws(reco | valid_count | sizes, num_classes)


def draws_of(case, update: int) -> dict:
  """The recorded draws of an update, and the recorded results that they led to."""
  it = {k.removeprefix(f"it{update}/"): v for k, v in case.items() if k.startswith(f"it{update}/")}
  contrast = contrast_draws(case, it)
  if "mix_mask" not in it:
    return {"contrast": contrast}
  number = lambda name, fill: np.nan_to_num(it[f"stage3_draw_{name}"], nan=fill).astype(np.float32)
  images = golden.nhwc(case["unlabelled_image_level"])
  scale = it["stage1_draw_scale"][:, None]
  return {
    "contrast": contrast,
    "mask": it["mix_mask"].astype(bool),
    "scale_crop": ScaleCrop(
      np.trunc(np.array(images.shape[2:4]) * scale).astype(np.int32),
      np.maximum(it["stage1_draw_crop"], 0),
    ),
    "jitter": ColorJitter(
      it["stage3_draw_jitter_on"].astype(bool),
      number("brightness", 1), number("contrast", 1), number("saturation", 1), number("hue", 0),
      np.where(it["stage3_draw_jitter_order"] < 0, np.arange(4), it["stage3_draw_jitter_order"]),
    ),
    "blur": Blur(it["stage3_draw_blur_on"].astype(bool), number("blur_sigma", 1)),
    "flip": it["stage3_draw_flip_on"].astype(bool),
  }  # fmt: skip


@contextlib.contextmanager
def replayed(draws: dict, monkeypatch):
  """Every function that draws returns what was drawn; labelled images are left as they are."""
  off = lambda keys: jnp.zeros(len(keys), bool)
  ones = lambda keys: jnp.ones(len(keys))
  still = lambda keys: ColorJitter(off(keys), *[ones(keys)] * 4, jnp.zeros((len(keys), 4), int))
  strong = views.strong_view

  def view(images, maps, keys):
    recorded = draws if len(maps) == 2 else {}  # unlabelled views carry a confidence
    with monkeypatch.context() as patch:
      patch.setattr(views, "draw_color_jitter", lambda k: recorded.get("jitter", still(k)))
      patch.setattr(views, "draw_blur", lambda k: recorded.get("blur", Blur(off(k), ones(k))))
      patch.setattr(views, "draw_flip", lambda k: recorded.get("flip", off(k)))
      return strong(images, maps, keys)

  with monkeypatch.context() as patch:
    patch.setattr(views, "strong_view", view)
    patch.setattr(views, "draw_scale_crop", lambda *_: draws["scale_crop"])
    patch.setattr(views.mix, "class_mask", lambda *_: draws["mask"])
    patch.setattr(views.mix, "box_mask", lambda *_: draws["mask"])
    patch.setattr(reco, "reco_loss", partial(reco.reco_loss, draws=draws["contrast"]))
    yield


def optimizer_of(case, network):
  epoch = int(case["iterations_per_epoch"])
  config = {
    "name": "sgd", "learning_rate": float(case["base_lr"]),
    "weight_decay": float(case["weight_decay"]),
    "schedule": {"name": "poly", "steps_per_epoch": epoch},
  }  # fmt: skip
  return make_optimizer(config, 200 * epoch, {"student": network})  # the script's 200 epochs


class Recorder(contract.Method):
  """A method that runs another one with the recorded draws that came with the batch.

  seen: the views of every update, once it has run.
  """

  def __init__(self, method, monkeypatch):
    self.method, self.monkeypatch, self.seen = method, monkeypatch, []
    self.start, self.after = method.start, method.after

  def targets(self, state, batch, key):
    with replayed(batch["draws"], self.monkeypatch):
      views = self.method.targets(state, batch, key)
    jax.debug.callback(lambda views: self.seen.append(views), views)
    return views | {"draws": batch["draws"]}

  def loss(self, params, state, views, key):
    with replayed(views["draws"], self.monkeypatch):
      loss, aux = self.method.loss(params, state, views, key)
    return loss, aux


@golden.cases("reco/train_*")
def test_recorded_run(case, monkeypatch, request):
  method = method_of(case, request.node.callspec.id)
  mesh, num_classes = make_mesh(jax.devices()[:1]), int(case["num_classes"])
  start, maker = variables(case, "init/"), Maker(np.random.default_rng(0))
  embedding_dim = int(case["output_dim"])
  _, network = split_network(TinyNet(num_classes, embedding_dim, maker))
  optimizer = optimizer_of(case, network)
  start = Start(start, network, None)
  state = make_state(start, method, optimizer, facts_of(num_classes), 0, mesh)
  recorder = Recorder(method, monkeypatch)
  step = make_train_step(recorder, optimizer, mesh)
  for update in range(len(case["labelled_label"])):
    batch = batch_of(case, update)
    batch["draws"] = draws_of(case, update)
    it = f"it{update}/"
    state, metrics = step(state, batch)
    jax.effects_barrier()
    if "unlabeled" in method.streams:
      made = recorder.seen[update]["unlabeled"]
      np.testing.assert_array_equal(uint8_labels(case[it + "stage3_label"]), made["label"])
      np.testing.assert_allclose(made["confidence"], case[it + "stage3_confidence"], **CONFIDENCE)
      np.testing.assert_array_equal(made["image"], golden.nhwc(case[it + "stage3_image_level"]))
    names = {"sup_loss": "supervised_loss", "unsup_loss": "unsupervised_loss",
             "reco_loss": "reco_loss"}  # fmt: skip
    for theirs, ours in names.items():
      if it + theirs in case:
        np.testing.assert_allclose(metrics[ours], case[it + theirs], **LOSS, err_msg=it + theirs)
    same = lambda ours, prefix: jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, **STATE, err_msg=prefix),
      ours,
      variables(case, prefix),
    )
    for name in method.networks:
      same(state.networks[name], f"{it}{name}/")
  assert step._cache_size() == 1
