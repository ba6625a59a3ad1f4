"""Keys, choices and batches on the command line; whatever README and docs name can be typed."""

import ast
import functools
import re
import shlex

import pytest
from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from data.blank import blank_dataset
from semiseg_jax import fields, networks
from semiseg_jax.convert.checkpoint import description
from semiseg_jax.input.build import train_streams
from semiseg_jax.methods import make_method
from semiseg_jax.networks import NETWORKS, TRUNKS
from semiseg_jax.training.choices import CHOICES
from semiseg_jax.training.optimizers import make_optimizer
from semiseg_jax.training.streams import TrainStream
from semiseg_jax.transforms import make_eval_transform
from tests.command_line import ROOT, parsed

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEY = re.compile(r"config((?:\.[a-z]\w*){2,})(?:=(\"[^\"]*\"|[\w./:,-]*\w))?")
NAMES = [(path, name) for path, table in CHOICES.items() for name in table]


def named_in_docs() -> list[tuple[str, str]]:
  found = {match for path in DOCS for match in KEY.findall(path.read_text())}
  return sorted((key[1:], value.strip('"')) for key, value in found)


@functools.cache
def choice_with(key: str) -> list[str]:
  """What has to be chosen for a key that the toy config doesn't have."""
  config = parsed("toy_reco.py")
  section, _, field = key.rpartition(".")
  if section not in CHOICES or field in config_path.get_value(section, config):
    return []
  name = next(name for name, kind in CHOICES[section].items() if field in fields.section(kind))
  return [f"--config.{section}.name={name}"]


@pytest.mark.parametrize(("key", "value"), named_in_docs())
def test_every_key_that_the_docs_name_can_be_set(key, value):
  chosen = choice_with(key)
  config = parsed("toy_reco.py", *chosen)
  default, kind = config_path.get_value(key, config), config_path.get_type(key, config)
  if kind is ConfigDict:
    return
  if not value or (value.isupper() and kind is not str):  # N stands for a number
    value = (
      {str: "text", int: "1", bool: "True", tuple: "(1, 2)"}[kind]
      if default is None
      else str(default)
    )
  found = config_path.get_value(key, parsed("toy_reco.py", *chosen, f"--config.{key}={value}"))
  assert found == (value if kind is str else ast.literal_eval(value))


def test_the_docs_name_keys():
  named = {key for key, _ in named_in_docs()}
  assert {"method.temperature", "data.labeled_transform.fill", "data.labeled"} <= named


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_another_choice_brings_its_own_keys(path, name):
  options = [f"--config.{path}.name={name}"]
  if path == "model.trunk":
    carried = (n for n, kind in NETWORKS.items() if issubclass(TRUNKS[name], kind.TRUNKS))
    options += [f"--config.model.name={next(carried)}"]
  config = parsed("toy_reco.py", *options)
  section = config_path.get_value(path, config)
  inner = {"name", *(slot.rpartition(".")[2] for slot in CHOICES if slot.startswith(f"{path}."))}
  if path == "model":  # what every network has beside its own
    inner |= set(config.model) - set(fields.section(CHOICES[path]["deeplabv3p"]))
  own = set(fields.section(CHOICES[path][name])) - {"crop"}
  assert section.name == name and own <= set(section) <= own | inner
  make_method(config.method)
  networks.make({k: v for k, v in description(config.model).items() if k != "normalization"})
  make_optimizer(config.optimizer, 10, {})
  make_eval_transform(config.evaluation.transform)


@pytest.mark.parametrize(
  ("options", "found"),
  [
    (["c3"], {}),
    (["zoo"], {"fill": 0}),
    (["dst_cbc_published"], {}),
    (["zoo", "--config.data.labeled_transform.fill=255"], {"fill": 255}),
  ],
)
def test_another_transform_makes_batches(options, found):
  config = parsed("toy_reco.py", *[f"--config.data.labeled_transform.name={options[0]}"],
                  *options[1:], "--config.data.crop=(32, 40)")  # fmt: skip
  assert found.items() <= dict(config.data.labeled_transform).items()
  dataset = blank_dataset("toy_scenes", None, (96, 128))
  streams = train_streams(config, dataset, ("labeled", "unlabeled"))
  stream = TrainStream(config, streams)
  batch = stream.next()["labeled"]
  stream.close()
  assert batch["image"].shape == (4, 32, 40, 3) and batch["label"].shape == (4, 32, 40)


@pytest.mark.parametrize(
  ("config", "option", "message"),
  [
    ("toy_reco.py", "--config.method.temprature=0.3", "did you mean config.method.temperature"),
    ("toy_reco.py", "--config.model.width=8", "did you mean config.model.trunk.width"),
    ("toy_reco.py", "--config.model.embedding_dim=8", "did you mean config.method.embedding_dim"),
    ("toy_reco.py", "--config.seed.of=8", "did you mean config.seed"),
    (
      "toy_reco.py",
      "--config.xyz=8",
      "no key config.xyz: semiseg_jax/training/sections.py has all",
    ),
    ("toy_reco.py", "--config.method.name=recoo", "did you mean 'reco'"),
    ("toy_reco.py", "--config.training.steps=many", "many"),
    ("toy_reco.py", "--config.method.temperature=warm", "warm"),
    (
      "toy_reco.py",
      "--config.training.steps=None",
      "config.training.steps cannot be None: .* 1500",
    ),
    ("toy_reco.py:lables=4", "--config.seed=1", "did you mean 'labels'"),
    ("toy_reco.py:batch=many", "--config.seed=1", "batch=many must be a whole number"),
    ("toy_rico.py", "--config.seed=1", "No such file.*toy_rico.py"),
  ],
)
def test_what_is_wrong_in_one_line(config, option, message):
  with pytest.raises(flags.IllegalFlagValueError, match=message) as caught:
    parsed(config, option)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "key",
  [
    "method.mixing",
    "method.ema_decay",
    "method.unlabeled_start",
    "model.init_from",
    "evaluation.subset",
  ],
)
def test_none_can_be_typed_where_it_may_be(key):
  section, _, name = key.rpartition(".")
  assert parsed("toy_c3.py", f"--config.{key}=None")[section][name] is None


def test_a_network_brings_a_trunk_that_carries_it():
  assert parsed("toy_reco.py", "--config.model.name=pspnet").model.trunk.name == "resnet18"
  unet = parsed("toy_reco.py", "--config.model.name=unet").model.trunk
  assert (unet.name, unet.width) == ("unet", 64)
  config = parsed(
    "toy_reco.py", "--config.model.name=unet", "--config.model.trunk.name=resnet18"
  ).model
  with pytest.raises(ValueError, match=r"'resnet18' does not carry this network: .*'unet'"):
    networks.complete({"name": "unet", "trunk": config.trunk})


def test_batch_is_scaled_behind_what_is_chosen_and_before_what_is_set():
  config = parsed("toy_reco.py:labels=4,batch=16", "--config.optimizer.name=adam",
                  "--config.evaluation.every=7")  # fmt: skip
  assert config.data.labeled == "reco/4_0"
  assert (config.data.labeled_batch, config.data.unlabeled_batch) == (16, 16)
  assert config.optimizer.learning_rate == pytest.approx(2e-3)  # twice, not four times as much
  assert (config.training.steps, config.evaluation.every) == (375, 7)
  bank = parsed("toy_reco.py:batch=8", "--config.method.name=memory_bank")
  assert (bank.method.ramp_steps, bank.method.bank_lead) == (1000, 500)


def test_readme_names_what_exists():
  text = "\n".join(path.read_text() for path in DOCS)
  text = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
  text = text.replace("\\\n", "").replace("$method", "reco").replace("$seed", "0")
  launches = [line for line in text.splitlines() if "launch.py" in line]
  assert len(launches) > 10
  for words in (shlex.split(line.strip("&; "), comments=True) for line in launches):
    options = dict(word.lstrip("-").partition("=")[::2] for word in words if word[:2] == "--")
    if options.get("mode") == "predict":
      assert {"workdir", "images"} <= options.keys()
      continue
    assert options["config"].startswith("configs/"), words
    parsed(options["config"].removeprefix("configs/"), *(w for w in words if "--config." in w))
