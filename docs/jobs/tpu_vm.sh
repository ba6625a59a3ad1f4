#!/bin/bash
# TPU VM: the same command on every host of a slice. bash docs/jobs/tpu_vm.sh NAME ZONE
# RUNS must be the same directory on all hosts: Filestore, or a bucket mounted with gcsfuse.
set -eu
name=$1 zone=$2 runs=${RUNS:-/mnt/runs}

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

on_all_hosts 'cd semiseg_jax && python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[tpu]"'
# 75: stopped, or another host was lost. Every host starts again and waits for the others.
on_all_hosts "cd semiseg_jax && . .venv/bin/activate && while :; do
  code=0
  python launch.py --config=configs/city_reco.py:labels=150 \
    --config.data.labeled_batch=32 --config.data.unlabeled_batch=32 \
    --workdir=$runs/city_reco || code=\$?
  [ \$code -gt 1 ] || exit \$code
done"
