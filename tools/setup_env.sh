#!/usr/bin/env bash
# Makes the environment that the Makefile's targets use, or brings it up to date. Run it as `make setup`.
#
# One stage a group of packages. A stage writes a stamp when it is through, keyed by all that it depends on, so a second
# run only compares keys, and an interrupted one goes on where it stopped. The variables are those of the Makefile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${VENV:-.venv}
state=$venv/.dtn-det
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dtn-det
jobs=${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}
read -r -a pip_args <<<"${PIP_ARGS:-}"

say() { printf '[setup] %s\n' "$*"; }
fail() {
  printf '[setup] error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '[setup]   %s\n' "$@" >&2
  exit 1
}

# --- Python and the environment ---------------------------------------------------------------------------------------

readonly suitable='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'

find_python() {
  local candidate answer found=""
  for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.10 python}; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    # A shim may be on the PATH with no Python behind it.
    answer=$("$candidate" --version 2>&1) || continue
    found+="$candidate is $answer; "
    "$candidate" -c "$suitable" >/dev/null 2>&1 || continue
    "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || {
      found+="(it lacks venv: apt-get install python3-venv) "
      continue
    }
    python=$candidate
    return
  done
  fail "expected a Python from 3.10 to 3.13 with its venv module${PYTHON:+ as PYTHON}, got: ${found:-none at all}" \
    "Debian or Ubuntu: apt-get install python3 python3-venv python3-dev" \
    "Fedora: dnf install python3.12 python3.12-devel; or name one: make setup PYTHON=/path/to/python3.12"
}

python_version() { "$1" -c 'import platform; print(platform.python_version())'; }

make_venv() {
  if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$suitable" >/dev/null 2>&1; then
    if [ -n "${PYTHON:-}" ]; then
      local wanted
      wanted=$(python_version "$PYTHON") || fail "PYTHON=$PYTHON does not run"
      [ "$wanted" = "$(python_version "$venv/bin/python")" ] ||
        fail "$venv holds Python $(python_version "$venv/bin/python"), PYTHON is $wanted" \
          "remove $venv, or make another: make setup VENV=.venv-$wanted PYTHON=$PYTHON"
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
      say "$venv lacks a working pip: putting it back"
      "$venv/bin/python" -m ensurepip --upgrade >/dev/null || fail "pip could not be put back: remove $venv"
    fi
    return
  fi
  if [ -d "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ "$venv" != .venv ]; then
    fail "$venv exists and is no virtual environment: choose another folder with VENV="
  fi
  find_python
  [ ! -d "$venv" ] || say "$venv is half made or its Python is gone: making it anew"
  say "making $venv with Python $(python_version "$python") ($(command -v "$python"))"
  "$python" -m venv --clear "$venv" || fail "$python could not make a virtual environment in $venv" \
    "Debian or Ubuntu: apt-get install python3-venv"
}

# --- Stages -----------------------------------------------------------------------------------------------------------

pin() { sed -n "s/^$1==\([^ ]*\).*/\1/p" constraints.txt; }

# A build for another CUDA version depends on other versions of CUDA's parts than the ones pinned here.
write_constraints() {
  mkdir -p "$state/logs"
  constraints=$state/constraints.txt
  if [ -n "${TORCH_INDEX:-}" ]; then
    grep -Ev '^(nvidia-|cuda-|triton)' constraints.txt >"$constraints"
  else
    cp constraints.txt "$constraints"
  fi
}

key() {
  local stage=$1
  shift
  { printf '%s\n' "$stage" "$version" "${TORCH_INDEX:-}" "${PIP_ARGS:-}" && cat -- "$@"; } | cksum
}

# stage NAME WHAT FILES...: true where NAME has to run, because it never did or one of the FILES changed since.
stage() {
  current=$1
  current_key=$(key "$1" "${@:3}")
  if [ "$(cat "$state/$current.stamp" 2>/dev/null)" = "$current_key" ]; then
    reused+="${reused:+, }$2"
    return 1
  fi
  rm -f "$state/$current.stamp"
  started=$SECONDS
  say "$2 ..."
}

through() {
  printf '%s\n' "$current_key" >"$state/$current.stamp"
  say "$current: done in $((SECONDS - started)) s"
}

# Shows the few lines of pip's output that tell how far it is.
progress() {
  local line tenth=0 done_count total
  while IFS= read -r line; do
    if [[ $line =~ Downloading\ ([^\ /]+)\ \(([0-9]{3,}\.[0-9]\ MB|[0-9.]+\ GB)\) ]]; then
      say "  downloading ${BASH_REMATCH[1]} (${BASH_REMATCH[2]})"
    elif [[ $line =~ ^\ *\[([0-9]+)/([0-9]+)\]\  ]]; then
      done_count=${BASH_REMATCH[1]} total=${BASH_REMATCH[2]}
      if ((done_count * 10 / total > tenth)); then
        tenth=$((done_count * 10 / total))
        say "  compiled $done_count of $total files"
      fi
    fi
  done
}

# logged COMMAND...: runs it with its output in the stage's log, and returns its exit status.
logged() {
  local log=$state/logs/$current.log code=0
  { "$@" </dev/null 2>&1 || code=$?; printf '%s' "$code" >"$log.code"; } | tee -a "$log" | progress
  code=$(cat "$log.code")
  rm -f "$log.code"
  return "$code"
}

# explain LOG: shows the end of a failed command's log, says what to do, and gives up.
explain() {
  { grep -E "(^|[^a-z])error: " "$1" | head -n 10 || true; } >&2
  tail -n 30 "$1" >&2
  local hint="the lines above say why; the whole log is $1"
  if grep -q "No space left on device" "$1"; then
    hint="the disk is full: free some space, or put the environment on another disk with VENV="
  elif grep -Eq "Python\.h: No such file" "$1"; then
    hint="Python's headers are missing: apt-get install python3-dev (Fedora: dnf install python3-devel)"
  elif grep -Eq "(c\+\+|g\+\+|gcc)['\"]?: (command )?not found|No such file or directory: '(c\+\+|g\+\+|gcc)'" "$1"; then
    hint="no C++ compiler: apt-get install g++ make (Fedora: dnf install gcc-c++ make)"
  elif grep -Eq "Killed signal terminated|Cannot allocate memory" "$1"; then
    hint="the compiler ran out of memory: run again with MAX_JOBS=1"
  elif grep -Eq "Name or service not known|Temporary failure in name resolution|NewConnectionError|timed out" "$1"; then
    hint="the package index was not reached: check the network and pip's configuration (pip config list)"
  elif grep -q "No matching distribution found" "$1"; then
    hint="the package index has no such version for Python $version on this machine: check pip's configuration"
  fi
  fail "the stage '$current' failed" "$hint" "then run the same command again: what is done is kept"
}

install() {
  logged "$venv/bin/python" -m pip install --no-input --progress-bar off --disable-pip-version-check \
    --constraint "$constraints" ${pip_args[@]+"${pip_args[@]}"} "$@" || explain "$state/logs/$current.log"
}

# --- mmcv -------------------------------------------------------------------------------------------------------------

check_compiler() {
  local include
  include=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
  command -v "${CXX:-c++}" >/dev/null 2>&1 || fail "no C++ compiler (${CXX:-c++}), which mmcv's operators need" \
    "Debian or Ubuntu: apt-get install g++ make; Fedora: dnf install gcc-c++ make"
  [ -e "$include/Python.h" ] || fail "no $include/Python.h, which mmcv's operators need" \
    "Debian or Ubuntu: apt-get install python3-dev; Fedora: dnf install python3-devel" \
    "or name a Python that has its headers: remove $venv, then make setup PYTHON=/path/to/python3"
}

check_disk() {
  local free
  free=$(df -Pk "$venv" | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge 8 ] || [ -n "${TORCH_INDEX:-}" ] || fail "expected 8 GB free for $venv, got $free GB" \
    "free some space, or put the environment on another disk with VENV="
}

mmcv_version() {
  "$venv/bin/python" -c 'from importlib.metadata import version; print(version("onedl-mmcv"))' 2>/dev/null || true
}

mmcv_loads() {
  "$venv/bin/python" -c 'import torch; from mmcv.ops import nms; nms(torch.rand(4, 4), torch.rand(4), 0.5)' >/dev/null 2>&1
}

build_mmcv() {
  local folder=$1 flags
  check_compiler
  say "  compiling mmcv $(pin onedl-mmcv) with up to $jobs processes: minutes, once for this torch"
  flags=$("$venv/bin/python" tools/mmcv_build.py flags "$state/headers" 2>>"$state/logs/mmcv.log")
  build_wheel "$folder" "$flags" || {
    # Some kernels refuse to map a precompiled header where it was made: then do without.
    grep -Eq "relocate PCH|\.gch" "$state/logs/mmcv.log" || explain "$state/logs/mmcv.log"
    build_wheel "$folder" "${CPPFLAGS:-} -g0 -w" || explain "$state/logs/mmcv.log"
  }
  rm -rf "$state/headers"
}

build_wheel() {
  local hidden=()
  [[ $1 != *-cpu ]] || hidden=(CUDA_VISIBLE_DEVICES= FORCE_CUDA=0)
  logged env "CPPFLAGS=$2" "MAX_JOBS=$jobs" "PATH=$(cd "$venv/bin" && pwd):$PATH" ${hidden[@]+"${hidden[@]}"} \
    "$venv/bin/python" -m pip wheel -v --no-input --progress-bar off --disable-pip-version-check \
    --no-build-isolation --no-deps --no-cache-dir --no-binary onedl-mmcv --constraint "$constraints" \
    ${pip_args[@]+"${pip_args[@]}"} --wheel-dir "$1" "onedl-mmcv==$(pin onedl-mmcv)"
}

install_mmcv() {
  local target folder wheel installed
  # One build fits one torch, and pip's own cache does not know which.
  target=$("$venv/bin/python" tools/mmcv_build.py target 2>>"$state/logs/mmcv.log") || {
    [ $? -eq 3 ] || explain "$state/logs/mmcv.log"
    say "  warning: a GPU but no CUDA toolkit (nvcc) of torch's CUDA version: mmcv's operators will run on the CPU alone"
  }
  installed=$(mmcv_version)
  # Without a record of what they were built for (someone else installed them), operators that run are taken as they are.
  if [ "$installed" = "$(pin onedl-mmcv)" ] && mmcv_loads &&
    [ "$(cat "$state/mmcv.target" 2>/dev/null || printf '%s' "$target")" = "$target" ]; then
    say "  reusing the operators in $venv"
    printf '%s\n' "$target" >"$state/mmcv.target"
    return
  fi
  folder=$cache/onedl-mmcv-$(pin onedl-mmcv)-$target
  wheel=$(ls "$folder"/*.whl 2>/dev/null || true)
  if [ -z "$wheel" ]; then
    build_mmcv "$folder"
    wheel=$(ls "$folder"/*.whl)
  else
    say "  reusing the operators compiled before: $wheel"
  fi
  # pip takes a wheel of the version that is installed for the same thing, whatever torch it was built for.
  [ -z "$installed" ] || install --force-reinstall --no-deps "$wheel"
  install "$wheel"
  mmcv_loads || {
    rm -rf "$folder"
    fail "mmcv's operators were built but do not run" "run $venv/bin/dtn-det doctor, then make setup again"
  }
  printf '%s\n' "$target" >"$state/mmcv.target"
}

# --- All of it --------------------------------------------------------------------------------------------------------

make_venv
mkdir -p "$state"
if command -v flock >/dev/null 2>&1; then
  exec 9>"$state/lock"
  flock -n 9 || { say "another set-up is running in $venv: waiting for it" && flock 9; }
fi
version=$(python_version "$venv/bin/python")
reused=""
write_constraints

if stage tools "pip, setuptools and what compiles mmcv" constraints.txt; then
  check_disk
  : >"$state/logs/$current.log"
  install --upgrade pip setuptools wheel ninja psutil packaging
  through
fi
if stage torch "torch $(pin torch) and torchvision $(pin torchvision)" constraints.txt; then
  : >"$state/logs/$current.log"
  install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==$(pin torch)" "torchvision==$(pin torchvision)"
  through
fi
if stage mmcv "mmcv $(pin onedl-mmcv)'s operators" constraints.txt tools/mmcv_build.py; then
  : >"$state/logs/$current.log"
  install_mmcv
  through
fi
sources=(constraints.txt pyproject.toml)
for source in setup.py dtn_det/layers/kernels/csrc/*; do [ ! -f "$source" ] || sources+=("$source"); done
if stage package "dtn-det, the detection packages and the tools of the tests" "${sources[@]}"; then
  : >"$state/logs/$current.log"
  install --no-build-isolation --editable '.[all,dev]'
  through
fi
if stage opencv "opencv without its windows" constraints.txt; then
  : >"$state/logs/$current.log"
  # Two packages own the folder cv2, one through mmcv: the headless one, written last, needs no libraries of a desktop.
  install --force-reinstall --no-deps "opencv-python-headless==$(pin opencv-python-headless)"
  "$venv/bin/python" -m pip check >>"$state/logs/$current.log" || say "warning: pip check: $(tail -n 3 "$state/logs/$current.log")"
  through
fi
say "$venv is ready (Python $version)${reused:+; reused: $reused}; to use it: source $venv/bin/activate"
