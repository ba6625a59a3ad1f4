"""The training loop: steps, logs, evaluations and checkpoints until the end or a signal."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from semiseg_jax.contract import TrainState, Tree
from semiseg_jax.files import write_json
from semiseg_jax.input.identity import identity
from semiseg_jax.input.pipeline import train_batches
from semiseg_jax.models.network import Variables
from semiseg_jax.runtime.checkpoints import Checkpoints
from semiseg_jax.runtime.compile_cache import folder_in_use
from semiseg_jax.runtime.lock import held
from semiseg_jax.runtime.mesh import idle_devices, replicate, shard_batch
from semiseg_jax.runtime.report import Reporter, jsonable
from semiseg_jax.runtime.signals import StopSignal
from semiseg_jax.runtime.workdir import compare, matters, read_result, record
from semiseg_jax.training.evaluator import Evaluation, Evaluator
from semiseg_jax.training.labels import check_labels
from semiseg_jax.training.outcome import already_done, best_in_words, is_done
from semiseg_jax.training.refresh import refresh
from semiseg_jax.training.selection import Selection, judge, monitored
from semiseg_jax.training.setup import Run
from semiseg_jax.training.start import compute_dtype
from semiseg_jax.training.streams import TrainStream
from semiseg_jax.training.window import Window


class DivergedError(RuntimeError):
  """The gradient is no longer finite."""


def train(run: Run, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains to the end, going on from the newest checkpoint in workdir; returns result.json.

  After SIGTERM or SIGINT the state is saved and the result's status is "interrupted". Raises
  DivergedError at a gradient that is not finite, naming the last good checkpoint, and ValueError as
  `check_labels` does.
  """
  sources = {name: stream.source for name, stream in run.streams.items()}
  data = identity(run.dataset.info, {**sources, "validation": run.dataset.val})
  keep = run.config.training.keep
  with held(workdir):
    changed = compare(workdir, run.config, data)
    result = read_result(workdir)
    if is_done(result, run.config, list(filter(matters, changed))):
      if jax.process_index() == 0:
        print(already_done(result, workdir))
      return result
    check_labels(run)
    record(workdir, run.config, data)
    with (
      StopSignal() as stop,
      Checkpoints(workdir / "checkpoints", keep) as checkpoints,
      Checkpoints(workdir / "best", keep=1) as best_checkpoints,
    ):
      return _Training(run, workdir, checkpoints, best_checkpoints, stop).run_to_end()


class _Training:
  """What changes while a run goes on: the state, the stream, the best score so far."""

  def __init__(
    self,
    run: Run,
    workdir: pathlib.Path,
    checkpoints: Checkpoints,
    best_checkpoints: Checkpoints,
    stop: StopSignal,
  ):
    self.run, self.workdir, self.stop = run, workdir, stop
    self.config = run.config
    self.checkpoints, self.best_checkpoints = checkpoints, best_checkpoints
    self.stream = TrainStream(run.config, run.streams)
    self.step_fn = run.train_step()
    self.evaluator = Evaluator(run)
    self.best = Selection()
    self.refreshed: dict[str, Any] | None = None
    self.last: Evaluation | None = None
    self.state = self.start()
    self.first_step = int(self.state.step)
    self.reporter = Reporter(
      workdir,
      run.config.training.steps,
      resume_step=self.first_step,
      enabled=jax.process_index() == 0,
    )
    self.window = Window(self.stream.images_per_step)
    self.reporter.note(self.summary())

  def summary(self) -> str:
    """What is about to be trained, on what, from where."""
    run, counts, info = self.run, self.stream.counts, self.run.dataset.info
    model, network = run.start.model, run.start.variables
    weights = sum(x.size for x in jax.tree.leaves(network.params))
    domain = f", {counts['domain']} of {run.config.data.domain.name}" if "domain" in counts else ""
    idle = idle_devices(run.mesh, {name: stream.batch for name, stream in run.streams.items()})
    idle = idle and f"{idle}\n"
    kept = f", or comes from the cache in {folder}" if (folder := folder_in_use()) else ""
    begin = run.start.note
    if self.first_step:
      begin = f"resuming at step {self.first_step} from {self.checkpoints.directory}"
    return (
      f"{info.name}: {info.num_classes} classes, {counts['labeled']} labelled and "
      f"{counts.get('unlabeled', 0)} unlabelled images{domain}, "
      f"{len(run.dataset.val)} to validate\n"
      f"{run.config.method.name}, {model['name']} on {model['trunk']['name']}, "
      f"{weights / 1e6:.2f} M weights, {compute_dtype(run.config.model.dtype)}, "
      f"{run.mesh.size} x {jax.devices()[0].device_kind}\n"
      f"{idle}{begin}; the first step compiles{kept}"
    )

  def start(self) -> TrainState:
    """The newest checkpoint's state, or a fresh one."""
    run = self.run
    state = run.initial_state(run.mesh)
    restored = self.checkpoints.restore(arrays_of(state), check_progress)
    if restored is None:
      return state
    arrays, about = restored
    self.stream.set_state(about["stream"])
    self.best = Selection(**about["best"])
    kept = self.best_checkpoints.about(check_score) or {}
    if refreshed := kept.get("refreshed"):  # kept after the last checkpoint of its run
      self.best = self.best._replace(step=kept["step"], score=kept["score"])
      is_over = self.is_over(refreshed["step"])
      self.refreshed = refreshed if is_over and refreshed["step"] == arrays["step"] else None
    return state.replace(**arrays)

  def run_to_end(self) -> dict[str, Any]:
    due, step = self.due, self.first_step
    try:
      self.window.restart()
      stops = False
      while not stops and not self.is_over(step):
        self.update()
        step += 1
        stops = self.stop.stops_after(step)  # once a step, so that a stop never goes unsaved
        evaluates = self.evaluates(step)
        saves = due(step, self.config.training.checkpoint_every) or stops
        if due(step, self.config.training.log_every) or evaluates or saves:
          self.log(step)
        if evaluates:
          self.evaluate(step)
          # so that a resumed run never goes back to a network that is ahead of it
          saves |= self.best.step == step and self.config.training.reload_best_after is not None
          saves |= self.is_over(step)
        if saves:
          self.save(step)
      is_over = self.is_over(step)
      if is_over and step == self.first_step:  # resumed at the end, where all is reported already
        self.last = self.evaluator(self.evaluator.network(self.state))
      self.checkpoints.wait()
      wants_refresh = self.config.training.refresh_batch_stats and self.best.step is not None
      if is_over and wants_refresh and not self.refreshed:
        self.refresh(step)
      result = self.finish(step, is_over)
      self.reporter.note(self.ending(result))
      return result
    finally:
      self.stream.close()
      self.reporter.close()

  def due(self, step: int, every: int) -> bool:
    return step % every == 0 or step == self.config.training.steps

  def evaluates(self, step: int) -> bool:
    """Whether the network is scored after so many steps."""
    evaluation = self.config.evaluation
    return self.due(step + evaluation.ahead, evaluation.every)

  def is_over(self, step: int) -> bool:
    """Whether all steps are done, or the score has not risen for so long that no more are worth it
    (checked where it was taken)."""
    training = self.config.training
    if step >= training.steps or training.stop_after is None:
      return step >= training.steps
    return self.evaluates(step) and step - self.best.since > training.stop_after

  def update(self) -> None:
    """One step; nothing waits for the device."""
    batch = self.window.waited_for(self.stream.next)
    batch = shard_batch(batch, self.run.mesh, leading=int(self.config.training.accumulate > 1))
    with jax.transfer_guard("disallow"):
      self.state, metrics = self.step_fn(self.state, batch)
    self.window.add(metrics)

  def log(self, step: int) -> None:
    """Fetches the metrics since the last log; stops the run if it has diverged."""
    metrics, bad = self.window.flush(step)
    if bad is not None:
      good = self.checkpoints.latest_step()
      where = "there is no checkpoint yet"
      if good is not None:
        where = f"the last good checkpoint is {self.checkpoints.path(good)}"
      raise DivergedError(
        f"the gradient of step {bad} is not finite; {where}. Lower optimizer.learning_rate, or "
        "look at the data with python -m semiseg_jax check"
      )
    self.reporter.train(step, {**metrics, "learning_rate": self.run.learning_rate(step - 1)})

  def evaluate(self, step: int) -> None:
    """Scores the network, draws panels, keeps it if it is the best so far, or goes back to that."""
    variables = self.evaluator.network(self.state)
    self.last = self.evaluator(variables)
    scores = self.last.scores
    names = self.run.dataset.info.class_names
    found = self.last.seconds, self.last.loss
    self.reporter.evaluation(step, scores, names, *found, self.others())
    self.reporter.panels(step, *self.evaluator.panels(variables))
    self.reporter.curves(self.run.dataset.info)
    self.best, is_best, goes_back = judge(
      self.best,
      step,
      self.score(self.last),
      ties_replace=self.config.evaluation.ties_replace,
      patience=self.config.training.reload_best_after,
    )
    if is_best:
      self.keep_best(step, variables)
    if goes_back and step < self.config.training.steps:
      self.go_back(step)
    self.window.restart()

  def others(self) -> dict[str, float]:
    """The score of every network that does not choose the best, where they are wanted."""
    if not self.config.evaluation.every_network:
      return {}
    monitor, networks = self.config.evaluation.monitor, self.state.networks
    return {
      f"{name}_{monitor}": self.score(self.evaluator(variables))
      for name, variables in networks.items()
      if name != self.run.scored
    }

  def score(self, found: Evaluation) -> float:
    return monitored(self.config.evaluation.monitor, found.scores, found.loss)

  def keep_best(self, step: int, variables: Variables) -> None:
    about = {"step": self.best.step, "score": self.best.score, "refreshed": self.refreshed}
    self.best_checkpoints.save(step, variables, {**self.evaluator.about(), **about})

  def best_variables(self) -> Variables:
    """The best network, laid over the mesh."""
    self.best_checkpoints.wait()
    variables, _ = self.best_checkpoints.restore(self.evaluator.network(self.state))
    return Variables(*variables)

  def go_back(self, step: int) -> None:
    """The networks start again from the best one; all else carries on."""
    run, best = self.run, jax.device_get(self.best_variables())
    networks, _ = run.method.start(best, run.start.make, run.facts)
    self.state = self.state.replace(networks=replicate(networks, run.mesh))
    self.reporter.note(
      f"step {step}: no better score for {self.config.training.reload_best_after} steps, going "
      f"back to the network of step {self.best.step}"
    )

  def refresh(self, step: int) -> None:
    """Re-estimates the best network's statistics; keeps them if they score better."""
    passes, run = self.config.training.refresh_batch_stats, self.run
    before, best = self.best.score, self.best_variables()
    batches = train_batches(
      {"unlabeled": run.streams.get("unlabeled", run.streams["labeled"])},
      seed=run.config.seed,
      host=(jax.process_index(), jax.process_count()),
      sharding=run.config.data.sharding,
      threads=run.config.data.threads,
    )
    images = (next(batches)["unlabeled"]["image"] for _ in range(passes))
    refreshed = refresh(run.start.network, best, images, run.mesh)
    batches.close()
    score = self.score(self.evaluator(refreshed))
    self.best, is_better, _ = judge(self.best, step, score, ties_replace=False, patience=None)
    self.refreshed = {"step": step, "before": before, "score": score}
    # a step on, so that the network it comes from stays until this one is written
    self.keep_best(step + 1, refreshed if is_better else best)
    self.best_checkpoints.wait()
    self.reporter.note(
      f"statistics re-estimated by {passes} passes: {self.config.evaluation.monitor} "
      f"{100 * before:.2f} -> {100 * score:.2f}"
    )

  def save(self, step: int) -> None:
    about = {
      "best": self.best._asdict(),
      "stream": self.stream.get_state(),
      **self.evaluator.about(),
    }
    self.reporter.flush()  # a run that goes on from this checkpoint has what was reported until it
    self.checkpoints.save(step, arrays_of(self.state), about)
    self.window.restart()

  def finish(self, step: int, is_over: bool) -> dict[str, Any]:
    result = {
      "status": "finished" if is_over else "interrupted",
      "step": step,
      "network": self.run.scored,
      "best": {"step": self.best.step, "score": self.best.score},
      "monitor": self.config.evaluation.monitor,
    }
    if self.refreshed is not None:
      result["refreshed"] = self.refreshed
    if self.last is not None:
      names = self.run.dataset.info.class_names
      result["last"] = {"loss": self.last.loss, **self.last.scores.as_dict(names)}
    if jax.process_index() == 0:
      write_json(self.workdir / "result.json", jsonable(result))
    return result

  def ending(self, result: dict[str, Any]) -> str:
    if result["status"] == "interrupted":
      return f"stopped and saved at step {result['step']}; the same command goes on from there"
    training = self.config.training
    early = ""
    if result["step"] < training.steps:
      early = f"ended early, no better score for more than {training.stop_after} steps; "
    return f"{early}{best_in_words(result)}; all of it is in {self.workdir}"


def check_progress(about: Mapping[str, Any]) -> None:
  """ValueError for a checkpoint that doesn't say where its run was, as `_Training.save` does."""
  best = Selection(**about["best"])
  check_score(best._asdict())
  if not isinstance(best.since, int) or not {"iterator", "recipe"} <= about["stream"].keys():
    raise ValueError("where its run was is not what a checkpoint says")


def check_score(about: Mapping[str, Any]) -> None:
  """ValueError unless it names a step and its score, or neither."""
  step, score = about["step"], about["score"]
  if not isinstance(step, int | None) or not isinstance(score, float | int | None):
    raise ValueError(f"step {step!r} and score {score!r} should be numbers")


def arrays_of(state: TrainState) -> Tree:
  """The state's fields that are checkpointed."""
  names = ["step", "networks", "opt_state", "method_state", "rng"]
  return {name: getattr(state, name) for name in names}
