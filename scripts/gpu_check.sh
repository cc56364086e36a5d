#!/usr/bin/env bash
# Checks everything on an NVIDIA machine, in parts that resume; see docs/gpu.md and --help.
# PYTHON names the interpreter; TRT86_PYTHON a Python 3.10 that has tensorrt 8.6.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-}
if [[ -z $python ]]; then
  for candidate in "$root/.venv/bin/python" python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
      python=$candidate
      break
    fi
  done
fi
if [[ -z $python ]]; then
  echo "gpu_check: found no Python, expected one >= 3.10; name it: PYTHON=/path/to/python" >&2
  exit 1
fi
for package in numpy scipy nibabel isal; do
  if ! "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$package') is None)"; then
    echo "gpu_check: $python has no package $package, expected it; unpack its wheel into a folder on PYTHONPATH" >&2
    exit 1
  fi
done
export PYTHONPATH="$root/runtime:$root:$root/export:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m kits_bench.gpu_check "$@"
