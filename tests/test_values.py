"""What a config may hold: any other value is one line that names its key, before all else."""

import math
import typing

import pytest
from absl import flags

from semiseg_jax import values
from semiseg_jax.commands import run
from semiseg_jax.losses.labeled import LOSSES
from semiseg_jax.rankdice.settings import RankDice
from semiseg_jax.training.check import check
from semiseg_jax.training.choices import CHOICES
from semiseg_jax.training.rounds import check as check_rounds
from semiseg_jax.training.sections import SECTIONS, Whole
from tests.command_line import launched, parsed

FIRST = {  # what the keys of one config don't have
  "toy_c3.py": "c3", "toy_memory_bank.py": "bank", "toy_dst_cbc.py": "rounds", "toy_zoo.py": "zoo"
}  # fmt: skip
SIZE, NUMBER = "must be a height and a width of at least 1", "must be a number"
REFUSED = [
  ("data.crop=96", SIZE),
  ("data.crop=(96,)", SIZE),
  ("data.crop=(0,0)", SIZE),
  ("data.crop=(-8,8)", SIZE),
  ("data.crop=a", SIZE),
  ("data.crop=(96,96,3)", SIZE),
  ("data.crop=(96,96.5)", SIZE),
  ("data.crop=(96,70_000)", SIZE),
  ("data.crop=None", "cannot be None"),
  ("data.name=", "must be a text that is not empty"),
  ("data.class_names=,", "must be different names with commas between them"),
  ("data.class_names=road,sky,road", "must be different names with commas between them"),
  ("data.class_names=road, road", "must be different names with commas between them"),
  ("data.ignore_index=-1", "must be at least 0"),
  ("data.rule=best", ": choose from 'balanced', 'sun'"),
  ("data.partial=p2", ": choose from 'p0', 'p1', 'p5', 'p25', or None"),
  ("data.palette=red", 'should be colours such as "4682b4,804080"'),
  ("data.min_classes=-1", "must be at least 0"),
  ("data.resize=0", "must be at least 1"),
  ("data.labeled_batch=0", "must be at least 1"),
  ("data.unlabeled_batch=0", "must be at least 1"),
  ("data.unlabeled_batch=-4", "must be at least 1"),
  ("data.unlabeled_batch=99999999999999", "must be at most 65536"),
  ("data.domain.batch=0", "must be at least 1"),
  ("data.threads=-1", "must be at least 1"),
  ("data.threads=0", "must be at least 1"),
  ("data.workers=-1", "must be at least 0"),
  ("data.workers=1000000", "must be at most 1024"),
  ("data.buffer=0", "must be at least 1"),
  ("data.sharding=foo", ": choose from 'batch', 'records'"),
  ("data.labeled_transform.scale_range=(1.5,0.5)", "above 0, the smaller first"),
  ("data.unlabeled_transform.scale_range=(0.0,1.0)", "must be two numbers above 0"),
  ("data.domain.transform.scale_range=1.0", "must be two numbers above 0"),
  ("model.trunk.width=0", "must be at least 1"),
  ("model.decoder_dim=-1", "must be at least 1"),
  ("model.dtype=float16", ": choose from 'auto', 'float32', 'bfloat16'"),
  ("model.remat=all", ": choose from 'none', 'elementwise', 'blocks'"),
  ("model.freeze_bn=some", ": choose from 'none', 'trunk', 'all'"),
  ("model.normalization=imagnet", ": did you mean 'imagenet'"),
  ("model.output_stride=7", ": choose from 16, 8"),
  ("method.embedding_dim=0", "must be at least 1"),
  ("method.temperature=0", "must be above 0"),
  ("method.temperature=nan", NUMBER),
  ("method.temperature=inf", NUMBER),
  ("method.num_negatives=-1", "must be at least 1"),
  ("method.num_queries=0", "must be at least 1"),
  ("method.ema_decay=2", "must be at most 1"),
  ("method.strong_threshold=7", "must be at most 1"),
  ("method.weak_threshold=-0.1", "must be at least 0"),
  ("method.mixing=mixup", ": choose from 'cutout', 'cutmix', 'classmix', or None"),
  ("method.scope=host", ": choose from 'global', 'device'"),
  ("method.aux_weight=-1", "must be at least 0"),
  ("method.supervised_loss=focal(gamma=-1)", " focal.gamma=-1 must be at least 0"),
  ("method.supervised_loss=ohem(threshold=2)", " ohem.threshold=2 must be at most 1"),
  ("method.supervised_loss=ce(class_weights=(1.0,-1.0))", " ce.class_weights=(1.0, -1.0) must"),
  ("optimizer.learning_rate=-1", "must be at least 0"),
  ("optimizer.learning_rate=nan", NUMBER),
  ("optimizer.momentum=5", "must be below 1"),
  ("optimizer.weight_decay=-1", "must be at least 0"),
  ("optimizer.groups=(('trunk',0.1),)", "not (pattern, factor above 0, decay or None)"),
  ("optimizer.groups=(('(',0.1,None),)", "not (pattern, factor above 0, decay or None)"),
  ("optimizer.schedule.power=-1", "must be at least 0"),
  ("optimizer.schedule.steps_per_epoch=0", "must be at least 1"),
  ("optimizer.schedule.warmup_steps=-1", "must be at least 0"),
  ("training.steps=0", "must be at least 1"),
  ("training.steps=3000000000", "must be at most 2147483647"),
  ("training.accumulate=0", "must be at least 1"),
  ("training.log_every=0", "must be at least 1"),
  ("training.keep=0", "must be at least 1"),
  ("training.stop_after=-5", "must be at least 1"),
  ("training.refresh_batch_stats=-1", "must be at least 0"),
  ("evaluation.batch=0", "must be at least 1"),
  ("evaluation.size=96", SIZE),
  ("evaluation.every=0", "must be at least 1"),
  ("evaluation.ahead=-1", "must be at least 0"),
  ("evaluation.panels=-1", "must be at least 0"),
  ("evaluation.monitor=mIoU", ": choose from 'miou_present'"),
  ("evaluation.temperature=0", "must be above 0"),
  ("evaluation.threshold=7", "must be at most 1"),
  ("evaluation.decide=rankdice(tail=0.7)", " rankdice.tail=0.7 must be below 0.5"),
  ("evaluation.protocol=other", ": choose from 'paper', 'standard'"),
  ("evaluation.boundary=-1", "must be at least 0"),
  ("evaluation.network=tutor", ": choose from 'student', 'teacher'"),
  ("inference.batch=0", "must be at least 1"),
  ("inference.window=5", SIZE),
  ("inference.scales=()", "must be one or more numbers above 0"),
  ("inference.flip=perhaps", "perhaps"),
  ("rounds.count=-1", "must be at least 0"),
  ("rounds.ratio=0", "must be above 0"),
  ("rounds.labels.size=(1,)", SIZE),
  ("seed=-1", "must be at least 0"),
  ("seed=99999999999999", "must be at most 2147483647"),
  ("bank: method.ramp_steps=0", "must be at least 1"),
  ("bank: method.memory_per_class=0", "must be at least 1"),
  ("bank: method.rank_order=up", ": choose from 'ascending', 'descending'"),
  ("bank: method.memory_weights=both", ": choose from 'code', 'rescaled'"),
  ("bank: method.domain_schedule=never", ": choose from 'alternate', 'code'"),
  ("rounds: method.rule=dynamical", ": choose from 'dynamic'"),
  ("rounds: method.gamma2=-1", "must be at least 0"),
  ("rounds: method.threshold=90", "must be at most 1"),
  ("rounds: rounds.labels.stride=0", "must be at least 1"),
  ("rounds: rounds.labels.version=newest", ": choose from 'scale', 'published'"),
  ("c3: method.pixels=0", "must be at least 1"),
  ("c3: method.unlabeled_start=-1", "must be at least 0"),
  ("c3: data.labeled_transform.scales=(0.0,)", "must be one or more numbers above 0"),
  ("c3: data.unlabeled_transform.views=two", ": choose from 'weak_strong'"),
  ("rounds: method.gamma=-1", "must be at least 0"),
  ("rounds: rounds.first.training.steps=0", "training.steps=0 must be at least 1"),
  ("zoo: data.labeled_transform.fill=3", ": choose from 0, 255"),
]  # fmt: skip


def refusal(config: str, *options: str) -> str:
  """What is said of these options, in parsing or after it."""
  with pytest.raises((ValueError, flags.IllegalFlagValueError)) as caught:
    config = parsed(config, *options)
    (check_rounds if config.rounds.count else check)(config)
  return str(caught.value)


@pytest.mark.parametrize(("option", "text"), REFUSED, ids=[option for option, _ in REFUSED])
def test_a_bad_value_is_one_line_that_names_its_key(option, text):
  which, _, option = option.rpartition(": ")
  config = {name: file for file, name in FIRST.items()}.get(which, "toy_reco.py")
  said = refusal(config, f"--config.{option}")
  assert text in said and "\n" not in said
  assert option.partition("=")[0].removeprefix("rounds.first.") in said


def every_type() -> dict[str, typing.Any]:
  """The types of all fields that a config or a text in it can set, by a name for people."""
  kinds = {"": Whole, **SECTIONS, "rankdice": RankDice, **LOSSES}
  kinds |= {
    f"{path} {name}": kind for path, table in CHOICES.items() for name, kind in table.items()
  }
  return {
    f"{where}.{key}": kind
    for where, owner in kinds.items()
    for key, kind in values.types_of(owner).items()
  }


def bare(kind: typing.Any) -> bool:
  """Whether a number, or several values, of any kind will do."""
  if hasattr(kind, "__metadata__"):
    return False
  return kind in (int, float, tuple) or any(map(bare, typing.get_args(kind)))


def test_every_number_says_its_range():
  free = {name for name, kind in every_type().items() if bare(kind)}
  assert {name.rpartition(".")[2] for name in free} == {"output_stride", "groups"}  # checked beside
  assert len(every_type()) > 300


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e60, "1", True, [None], {}])
def test_no_number_is_any_of_these(value):
  kinds = {k: kind for k, kind in every_type().items() if values.plain(kind) in (int, float)}
  assert len(kinds) > 100
  for name, kind in kinds.items():
    with pytest.raises(ValueError, match=r"must|choose"):
      values.check(name, value, kind)


@pytest.mark.parametrize("name", ["folder_reco.py", "city_reco.py", "voc_dmt.py", "gta5_city.py"])
def test_defaults_are_taken(name):
  config = parsed(name)
  (check_rounds if config.rounds.count else check)(config)


@pytest.mark.parametrize(
  ("kind", "good", "bad"),
  [
    (values.Count, (1, 2**31 - 1), (0, -1, 2**31, 1.0, True, None)),
    (values.Share, (0, 1, 0.5), (-1e-9, 1.1, "0.5", False)),
    (values.Positive, (1e-30, 3), (0, 0.0, -1, math.nan, 10**400)),
    (values.Momentum | None, (0, 0.99, None), (1, 1.0, ())),
    (values.Size, ((1, 2), [3, 4]), ((1,), (1, 2, 3), 5, "ab", (1.0, 2.0), None)),
    (values.Interval, ((1, 1), (0.5, 2)), ((2, 0.5), (0, 1), (1, 101), (math.nan, 1))),
    (values.Scales, ((1.0,), (0.5, 2, 1)), ((), (1, 0), ("1",), 1.0)),
    (values.OddSide, (1, 7), (0, 2, -1, 1001)),
    (values.Names, ("a", "sky, road"), (",", "a,", "a,b,a", "a,,b", "")),
    (typing.Literal["a", "b"] | None, ("a", None), ("c", "", 0)),
    (tuple[()] | values.Size, ((), (1, 2)), ((1,), 0)),
  ],
)
def test_types_and_their_values(kind, good, bad):
  for value in good:
    values.check("key", value, kind)
  for value in bad:
    with pytest.raises(ValueError, match=r"^key=.*(must|choose)"):
      values.check("key", value, kind)


def nothing(*args, **kwargs):
  raise AssertionError("this comes too late")


@pytest.mark.parametrize("mode", ["train", "evaluate", "plan"])
def test_launch_says_it_before_it_prepares_or_compiles(mode, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(run, "domains", nothing)
  path = tmp_path / "there"
  options = [f"--mode={mode}", f"--workdir={path}", "--config.evaluation.batch=0"]
  assert launched("--config=configs/toy_reco.py", *options) == 1
  assert capsys.readouterr().err == "launch.py: config.evaluation.batch=0 must be at least 1\n"
  assert not path.exists()


def test_values_that_contradict_are_found_before_data_are_prepared(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(run, "domains", nothing)
  options = ["--config.data.partial=p1", f"--workdir={tmp_path}"]
  assert launched("--config=configs/toy_reco.py", *options) == 1
  assert "sparse labels need both" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("argument", "said"),
  [
    (":label=3", "did you mean 'labels'?"),
    (":labels=some", "labels takes a whole number"),
    (":labels=-1", "labels=-1 must be at least 0"),
    (":split=99999999999999", "split=99999999999999 must be at most 2147483647"),
    (":batch=", "batch= must be a whole number"),
    (":batch=-4", "batch=-4 must be a whole number"),
    (":batch=0", "batch=0: "),
  ],
)
def test_arguments_behind_the_colon(argument, said):
  assert said in refusal(f"toy_reco.py{argument}")


@pytest.mark.parametrize(
  ("code", "said"),
  [
    ("def get_config(arg=None): return {}['steps']", "is no config: KeyError: 'steps'"),
    ("± 1", "is no config: SyntaxError: invalid character"),
    ("import no_such_module_there", "is no config: ModuleNotFoundError: No module named"),
    ("def get_config(arg=None): return 1 + 'a'", "unsupported operand"),
  ],
)
def test_a_file_that_is_no_config(code, said, tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(code)
  assert said in refusal(str(path))


def test_a_config_that_is_not_there():
  assert "No such file" in (said := refusal("toy_rico.py"))
  assert "did you mean" in said and "toy_reco.py" in said
