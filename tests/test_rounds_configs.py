"""Every command of DST-CBC's and DMT's scripts, by the numbers of their sheet."""

import pathlib

import pytest

from semiseg_jax.methods import make_method
from semiseg_jax.training.rounds import check, stage_config, stages
from tests.test_configs import get

# Dataset, 1/labels: images, steps of the supervised run, steps between scores, steps of a round.
DST_CBC = {
  ("voc", 1): (39_690, 1000, None), ("voc", 4): (19_860, 500, 11_910),
  ("voc", 8): (14_110, 350, 13_890), ("voc", 20): (8978, 220, 15_078),
  ("voc", 50): (5724, 140, 15_558), ("voc", 106): (3900, 100, 15_726),
  ("city", 1): (22_320, 1000, None), ("city", 4): (11_160, 500, 3348),
  ("city", 8): (7990, 350, 3906), ("city", 30): (4290, 100, 4314),
}  # fmt: skip
# The same of DMT: supervised steps and interval, steps of a phase, rate, gamma, batches, interval.
DMT = {
  ("voc", 20, "weights"): (8978, 220, 5744, 1e-3, 5.0, (1, 7), 500),
  ("voc", 106, "samples"): (3000, 100, 5992, 1e-3, 5.0, (1, 7), 500),
  ("voc", 1464, "weights"): (15_555, 350, 6515, 1e-3, 5.0, (1, 7), 500),
  ("city", 8, "weights"): (7990, 350, 4340, 4e-3, 3.0, (2, 6), 300),
}
SIZES = {  # version: crop, test size, size of the images that are labelled and of their labels
  ("voc", "scale"): ((321, 321), (505, 505), (505, 505), None),
  ("voc", "published"): ((321, 321), (505, 505), (321, 321), None),
  ("city", "scale"): ((256, 512), (512, 1024), (512, 1024), (256, 512)),
  ("city", "published"): ((257, 513), (513, 1025), (257, 513), None),
}


def check_supervised(first, steps: int, every: int, rate: float) -> None:
  assert (first.training.steps, first.evaluation.every) == (steps, every)
  assert first.data.labeled_batch == 8 and first.optimizer.learning_rate == rate
  method = make_method(first.method)
  assert method.streams == ("labeled",)


@pytest.mark.parametrize("version", ["scale", "published"])
@pytest.mark.parametrize("row", DST_CBC, ids=str)
def test_dst_cbc(row, version):
  dataset, labels = row
  steps, every, steps_of_a_round = DST_CBC[row]
  arg = f"labels={labels},split=2,version={version}"
  rate = 0.004 if (dataset, version) == ("city", "scale") else 0.002
  baseline = get(f"{dataset}_dst_cbc", f"{arg},method=supervised")
  assert not baseline.rounds.count and baseline.data.labeled == f"dst_cbc/{labels}_2"
  check_supervised(baseline, steps, every, rate)
  if labels == 1:
    with pytest.raises(ValueError, match="no image unlabelled"):
      get(f"{dataset}_dst_cbc", arg)
    return
  config = get(f"{dataset}_dst_cbc", arg)
  check(config)
  made = stages(config)
  assert [stage.ratio for stage in made] == [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
  check_supervised(stage_config(config, made[0], None, {}), steps, every, rate)
  assert config.training.steps == steps_of_a_round and config.evaluation.every == 1000
  assert config.data.labeled_batch == config.data.unlabeled_batch == 4
  optimizer, method = config.optimizer, config.method
  assert (optimizer.learning_rate, optimizer.weight_decay) == (0.002, 5e-4)
  assert optimizer.momentum == 0.9 and not optimizer.nesterov
  assert (optimizer.schedule.power, optimizer.schedule.floor) == (0.9, 0.0)
  assert (method.rule, method.gamma) == ("dynamic", 9.0)
  assert (config.model.name, config.model.classifier_branches) == ("deeplabv2", 2)
  assert config.evaluation.ahead == 1 and not config.evaluation.ties_replace
  labelling = config.rounds.labels
  sizes = config.data.crop, config.evaluation.size, labelling.size, labelling.label_size
  assert sizes == SIZES[dataset, version]
  assert (labelling.version, labelling.batch, labelling.stride) == (version, 8, 16)
  published = version == "published"
  for transform in (config.data.labeled_transform, config.data.unlabeled_transform):
    assert transform.name == ("dst_cbc_published" if published else "dst_cbc")
    if published:
      assert transform.largest == sizes[1]
    else:
      assert transform.scale_range == (0.5, 1.5)
      assert transform.resize == ((512, 1024) if dataset == "city" else None)


def test_valtiny_is_for_all_stages():
  config = get("voc_dst_cbc", "valtiny=true")
  for stage in stages(config)[:2]:
    results = {"round_0": {"best": {"score": 0.5}, "folder": "there"}}
    own = stage_config(config, stage, pathlib.Path("runs"), results)
    assert own.evaluation.subset == "dst_cbc/valtiny"


@pytest.mark.parametrize(
  ("name", "rule", "gamma", "rounds", "per_class", "squash"),
  [
    ("st", "dynamic", 0, 1, True, False),
    ("dst", "dynamic", 9, 1, True, False),
    ("dstc", "dynamic", 9, 5, False, False),
    ("ow", "stored", 9, 5, True, False),
    ("ost", "online", 0, 1, True, False),
    ("ost_na", "online", 0, 1, True, True),
    ("ost_t", "online", 0, 1, True, False),
    ("ost_t_na", "online", 0, 1, True, True),
    ("st_na", "dynamic", 0, 1, True, True),
  ],
)
def test_ablations(name, rule, gamma, rounds, per_class, squash):
  config = get("voc_dst_cbc", f"labels=20,split=1,ablation={name}")
  assert (config.method.rule, config.method.gamma) == (rule, gamma)
  assert config.rounds.count == rounds and config.rounds.labels.per_class == per_class
  assert config.rounds.ratio == (1.0 if rounds == 1 else 0.2)
  assert config.training.steps == (5 if rounds == 1 else 1) * 15_078
  name_of = config.data.unlabeled_transform.name
  assert name_of == ("dst_cbc_squash" if squash else "dst_cbc_published")
  assert config.rounds.labels.version == "published" and config.rounds.online == (rule == "online")
  if rule == "online":
    assert config.method.threshold == (0.9001 if "_t" in name else 1e-4)


@pytest.mark.parametrize("row", DMT, ids=str)
def test_dmt(row):
  dataset, labels, pair = row
  steps, every, phase, rate, gamma, batches, interval = DMT[row]
  config = get(f"{dataset}_dmt", f"labels={labels},pair={pair}")
  check(config)
  made = stages(config)
  assert [stage.name for stage in made[:4]] == ["round_0a", "round_0b", "round_1a", "round_1b"]
  assert made[3].starts_from == ("round_0b",) and made[3].labeled_by == ("round_0a",)
  first, second = (stage_config(config, stage, None, {}) for stage in made[:2])
  assert (first.seed, second.seed) == (1, 2)
  for own in (first, second):
    check_supervised(own, steps, every, 0.004 if dataset == "city" else 0.002)
  if pair == "samples":
    names = first.data.labeled, second.data.labeled, first.data.unlabeled
    assert names == ("dmt/106_1_left", "dmt/106_1_right", "rest of dst_cbc/106_1")
  assert config.training.steps == phase and config.evaluation.every == interval
  assert config.optimizer.learning_rate == rate
  assert (config.data.labeled_batch, config.data.unlabeled_batch) == batches
  assert (config.method.rule, config.method.gamma, config.method.gamma2) == ("mutual", gamma, gamma)
  assert config.rounds.labels.label_size is None and config.rounds.labels.version == "scale"


def test_one_network_that_labels_for_itself():
  config = get("voc_dmt", "labels=50,split=2,pair=none,rule=cbst")
  assert [stage.name for stage in stages(config)] == [f"round_{i}" for i in range(6)]
  assert (config.method.rule, config.method.gamma) == ("dynamic", 0.0)
  assert get("voc_dmt", "rule=naive").method.gamma == 5.0
  assert get("voc_dmt", "rule=flip").method.rule == "flip"
  online = get("voc_dmt", "labels=50,split=2,pair=none,rule=online")
  assert (online.rounds.count, online.rounds.online, online.method.threshold) == (1, True, 0.9)
  assert online.training.steps == 20 * 1482


@pytest.mark.parametrize(
  ("name", "arg", "message"),
  [
    ("voc_dst_cbc", "labels=30", "choose from 1, 4, 8, 20, 50, 106"),
    ("city_dst_cbc", "ablation=cbc", "choose from '', 'st'"),
    ("voc_dst_cbc", "version=dmt", "choose from 'scale', 'published'"),
    ("voc_dmt", "pair=both", "choose from 'weights', 'samples', 'none'"),
    ("voc_dmt", "rule=online", "has no labeller: pair=none"),
    ("voc_dmt", "rule=mutal", "choose from 'mutual', 'flip'"),
    ("city_dmt", "pair=samples", "there are such samples of VOC"),
  ],
)
def test_bad_arguments(name, arg, message):
  with pytest.raises(ValueError, match=message):
    get(name, arg)
