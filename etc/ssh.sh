#!/usr/bin/env bash
# Trains on several machines, one worker on each, which ssh starts.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: etc/ssh.sh HOST HOST ... -- --run_dir=DIR [other flags of train.py]

Runs `python train.py FLAGS` on every HOST; together they train one network. The first HOST is the
chief, whose output is shown; that of the others goes to ssh-worker-N.log. The HOSTs must reach
each other by these names (a USER@ is for ssh alone), at PORT, which has no password: only on a
network where nobody else does. A HOST named twice runs two workers, at PORT and PORT + 1. The
project must be in the same folder on all of them, and DIR and the data on a file system they share.

When a worker dies, all are started again and go on from the newest checkpoint, until three tries
in a row have saved none. A run that has begun goes on. Ctrl-C, SIGTERM or the end of this script
or of a connection let all workers save and end.

Variables, with their defaults:
  DIRECTORY   the current one    where the project is, on every HOST
  PYTHON      .venv/bin/python if it is there, else python
  PORT        2222
  SSH         ssh -o BatchMode=yes
  GRACE       60    seconds that workers have to save and end before they are killed
  LOGS        .     where the logs go, on this machine

Exit status: 0 trained; 1, 2, 75: that of train.py; 130, 143: stopped, after a checkpoint.
TEXT
}

DIRECTORY=${DIRECTORY:-$PWD} PYTHON=${PYTHON-} PORT=${PORT:-2222} GRACE=${GRACE:-60} LOGS=${LOGS:-.}
read -ra SSH <<<"${SSH:-ssh -o BatchMode=yes}"
TRIES=3

say() { printf 'ssh.sh: %s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$2" >&2
  exit "$1"
}

# What runs on a HOST: DIRECTORY GRACE PYTHON TF_CONFIG FLAGS... Its input stays open and empty
# until the workers shall end, or the connection is lost: a signal would not get through ssh.
worker() {
  local directory=$1 grace=$2 python=$3 pid i
  export TF_CONFIG=$4
  shift 4
  cd "$directory" || exit 2
  if [ -z "$python" ]; then
    python=python
    [ ! -x .venv/bin/python ] || python=.venv/bin/python
  fi
  pass_on() { cat || cat >/dev/null; } # a worker whose output is lost must be able to save
  "$python" train.py "$@" </dev/null > >(pass_on) 2> >(pass_on >&2) &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    read -rt 0.2 || [ $? -gt 128 ] || break # above 128: no end of file in that time
  done
  kill -TERM "$pid" 2>/dev/null
  for ((i = 0; i < grace; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 1
  done
  kill -KILL "$pid" 2>/dev/null # TensorFlow does not listen while it joins the workers
  wait "$pid"
}

# What a run has written last: nothing, run.json, or a checkpoint. DIRECTORY RUN_DIR
last_written() {
  local files
  cd "$1" || exit 2
  shopt -s nullglob
  files=("$2"/run.json* "$2"/checkpoints/step-*)
  [ ${#files[@]} = 0 ] || printf '%s\n' "${files[@]: -1}"
}

# Becomes the ssh that calls one of these functions on a HOST.
remote() {
  local host=$1 name=$2
  shift 2
  set -- bash -c "$(declare -f "$name"); $name \"\$@\"" "$name" "$@"
  exec "${SSH[@]}" "$host" "exec$(printf " '%s'" "${@//\'/\'\\\'\'}")"
}

# The workers' addresses, as JSON strings: HOST:PORT, the next port where HOST was named before.
addresses() {
  local host separator='' port
  local -A used=()
  for host in "${hosts[@]##*@}"; do
    port=$((PORT + ${used[$host]:-0}))
    used[$host]=$((${used[$host]:-0} + 1))
    printf '%s"%s:%d"' "$separator" "$host" "$port"
    separator=', '
  done
}

# Sets `left`: the workers that have not ended. No subshell, which Ctrl-C would end.
look() {
  local pid
  left=()
  for pid in "${pids[@]}"; do
    ! kill -0 "$pid" 2>/dev/null || left+=("$pid")
  done
}

pause() { sleep 0.2 || true; } # Ctrl-C ends it

# Waits until all have ended, at most so many seconds.
wait_for_all() {
  local end=$((SECONDS + $1))
  look
  while [ ${#left[@]} -gt 0 ] && [ "$SECONDS" -lt "$end" ]; do
    pause
    look
  done
}

# Starts all workers with these flags and waits until all have ended: `codes`.
train() {
  local index both input held task pid
  exec {both}<>"$folder/input" # or the next two would wait for each other
  exec {input}<"$folder/input"
  exec {held}>"$folder/input"
  exec {both}>&-
  pids=() codes=()
  set -m # a process group for each, which Ctrl-C does not reach
  for index in "${!hosts[@]}"; do
    task="{\"cluster\": {\"worker\": [$(addresses)]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
    {
      [ "$index" = 0 ] || exec >>"$LOGS/ssh-worker-$index.log" 2>&1
      remote "${hosts[index]}" worker "$DIRECTORY" "$GRACE" "$PYTHON" "$task" "$@"
    } <&"$input" {held}>&- &
    pids+=($!)
  done
  set +m
  exec {input}<&-
  look
  while [ -z "$signal" ] && [ ${#left[@]} = ${#hosts[@]} ]; do
    pause
    look
  done
  [ -n "$signal" ] || wait_for_all "$GRACE" # the others notice, and say so
  exec {held}>&-
  wait_for_all $((GRACE + 10))
  for pid in "${left[@]}"; do
    kill -KILL -- "-$pid" || true # a connection that hangs
  done
  for index in "${!pids[@]}"; do
    codes[index]=0
    wait "${pids[index]}" || codes[index]=$?
    [ "${codes[index]}" = 0 ] || say "worker $index (${hosts[index]}) ended with ${codes[index]}"
  done
}

# One exit status for those of all workers; 75 where starting them again may help.
verdict() {
  local code again='' stopped=''
  for code in "${codes[@]}"; do
    case $code in
      0) ;;
      1 | 2 | 126 | 127) echo "$code" && return ;;
      130 | 143) stopped=$code ;;
      *) again=75 ;; # 75; killed; 255, no connection
    esac
  done
  echo "${again:-${stopped:-0}}"
}

main() {
  local run_dir='' flag code before now tries=0
  hosts=() signal=''
  case ${1-} in -h | --help) usage && exit 0 ;; esac
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [[ $1 =~ ^([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail 2 "expected HOST ... -- FLAGS, received $1"
    hosts+=("$1")
    shift
  done
  [ "${1-}" = -- ] && [ ${#hosts[@]} -gt 0 ] || fail 2 "expected HOST ... -- FLAGS of train.py (-h explains)"
  shift
  for flag; do
    [[ $flag != --run_dir=?* ]] || run_dir=${flag#*=}
  done
  [ -n "$run_dir" ] || fail 2 "expected --run_dir=DIR, on a file system that all hosts share"

  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  trap 'signal=1' HUP
  trap 'signal=2' INT
  trap 'signal=15' TERM
  mkfifo "$folder/input"
  for ((flag = 1; flag < ${#hosts[@]}; flag++)); do
    : >"$LOGS/ssh-worker-$flag.log"
  done
  while :; do
    now=$(remote "${hosts[0]}" last_written "$DIRECTORY" "$run_dir" </dev/null) ||
      [ -n "$signal" ] || fail 75 "cannot look for $run_dir in $DIRECTORY on ${hosts[0]}"
    [ -z "$signal" ] || exit $((128 + signal))
    [ "$now" = "${before-}" ] || tries=0
    [ "$((tries++))" -lt "$TRIES" ] || fail 75 "gave up: $TRIES tries have saved nothing"
    before=$now
    train "$@" ${now:+--resume}
    code=$(verdict)
    case $code in 0 | 1 | 2 | 126 | 127) exit "$code" ;; esac
    [ -z "$signal" ] || exit $((128 + signal))
    [ "$code" = 75 ] || exit "$code"
    say "starting all workers again"
  done
}

main "$@"
