#!/bin/bash
# TPU VM: the same command on every host of a slice. bash docs/jobs/tpu_vm.sh NAME ZONE
# RUNS is the same for all hosts: a folder of a bucket, or a directory that all share. DATA: prepared, in a bucket.
set -eu
name=$1 zone=$2 runs=${RUNS:-gs://BUCKET/runs} data=${DATA:-gs://BUCKET/data}

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

on_all_hosts 'cd semiseg_jax && python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[tpu,gcs]"'
# 75: stopped, or another host was lost. Every host starts again and waits for the others.
on_all_hosts "cd semiseg_jax && . .venv/bin/activate && while :; do
  code=0
  python launch.py --config=configs/city_reco.py:labels=150 \
    --config.data.labeled_batch=32 --config.data.unlabeled_batch=32 \
    --config.data.data_dir=$data --workdir=$runs/city_reco || code=\$?
  [ \$code -gt 1 ] || exit \$code
done"
