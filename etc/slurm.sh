#!/usr/bin/env bash
#SBATCH --job-name=convnets
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append          # a job that is queued again goes on in its log
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1         # one worker, for all GPUs of its node
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=0                     # all memory of the nodes
#SBATCH --time=24:00:00
#SBATCH --requeue                   # also after a node's failure, by Slurm
#SBATCH --signal=B:USR1@180         # to this script alone, so many seconds before the time is up

# Trains on the nodes of a Slurm job, submitted in the project's folder:
#
#   sbatch etc/slurm.sh --data=/shared/shards --model=resnet50 --run_dir=/shared/runs/resnet50
#   sbatch --nodes=4 --gpus-per-node=8 etc/slurm.sh ...     # options before the script's name win
#
# --run_dir is given, on a file system that all nodes share. A run that has begun goes on. Before
# the time is up all workers save, and the job is queued again. When a worker dies, all are started
# again, until three tries in a row have saved nothing. To stop it with a checkpoint:
#
#   scancel --signal=TERM JOBID
#
# A plain scancel kills at once: srun answers SIGTERM by SIGKILL to its tasks. That costs the steps
# since the last checkpoint, no more.
set -euo pipefail
TRIES=3

fail() {
  printf 'error: %s\n' "$2" >&2
  exit "$1"
}

# What the run has written last: nothing, run.json, or a checkpoint.
last_written() {
  local files
  shopt -s nullglob
  files=("$run_dir"/run.json* "$run_dir"/checkpoints/step-*)
  [ ${#files[@]} = 0 ] || printf '%s\n' "${files[@]: -1}"
}

# Runs all workers with these flags; returns the highest exit status of theirs, as srun does.
train() {
  local code=0
  # A worker that ends does not kill the others: they notice and say so, and have 60 s for that.
  # Of sbatch's options, srun does not take over --cpus-per-task.
  srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
    "$PYTHON" train.py "$@" &
  wait $! || code=$?
  [ -z "$time_is_up" ] || { code=0 && wait $! || code=$?; } # the trap had ended it early
  return "$code"
}

run_dir='' time_is_up=''
for flag; do
  [[ $flag != --run_dir=?* ]] || run_dir=${flag#*=}
done
[ -n "$run_dir" ] || fail 2 "expected --run_dir=DIR, on a file system that all nodes share"
[ -f train.py ] || fail 2 "expected the project's folder, received $PWD"
if [ -z "${PYTHON-}" ]; then
  PYTHON=python
  [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
trap 'time_is_up=yes; scancel --signal=TERM "$SLURM_JOB_ID" || true' USR1 # to the workers

tries=0
first=$(last_written)
now=$first
while [ -z "$time_is_up" ]; do
  before=$now code=0
  train "$@" ${now:+--resume} || code=$?
  now=$(last_written)
  case $code in 0 | 1 | 2 | 126 | 127) exit "$code" ;; esac
  [ -z "$time_is_up" ] || break
  case $code in 130 | 143) exit "$code" ;; esac # told to stop: all have saved
  if [ "$now" = "$before" ]; then tries=$((tries + 1)); else tries=0; fi
  [ "$tries" -lt "$TRIES" ] || fail "$code" "gave up: $TRIES tries have saved nothing"
  echo "slurm.sh: ended with $code, starting all workers again" >&2
done
[ "$now" != "$first" ] || fail "$code" "the time was too short for one checkpoint"
scontrol requeue "$SLURM_JOB_ID"
exit "$code"
