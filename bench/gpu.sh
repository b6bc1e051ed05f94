#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: builds this tree with CUDA, runs the tests marked `gpu` and the benchmarks beside
# PyTorch (and JAX where it is installed), and the kernels under compute-sanitizer.   bench/gpu.sh [STEP...]
#
#   build      for the device at hand; all others need it
#   tests      every kernel against its reference, the CPU's bits, chains, graphs; GENCORE_EVERY_SIZE=4: fewer sizes
#   models     models and user-written ops on CuPy's arrays, beside the CPU's
#   cpp        a C++ program that links gencore::cuda
#   bench      the benchmarks, or some: rbm pixels recurrent sample
#   sanitize   every kernel at each fourth size: memcheck racecheck
#
# Without names, all of them in this order. Each step is stopped after some minutes (`seconds` below; TIMES=3 for a
# slow machine triples that), and the whole call after LIMIT seconds if that is set. Of a machine that is lent for
# minutes, the most is had by LIMIT=560 bench/gpu.sh build tests, then LIMIT=200 bench/gpu.sh models rbm; the rest
# another time.
#
# To ${OUT:-bench/results} go one log of the call, as it is written, and of the benchmarks gpu-rbm.json,
# gpu-pixels.json, gpu-recurrent.json and gpu-sample.json, written after each work, with what came of the steps so far
# (which build/gpu keeps from call to call).
#
# Needs nvcc, cmake, and Python with numpy, pybind11, pytest, hypothesis, scipy and scikit-learn; CuPy or PyTorch for
# the tests, CuPy and numba for the models, PyTorch for the benchmarks. Downloads nothing.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=$(mkdir -p "${OUT:-bench/results}" && cd "${OUT:-bench/results}" && pwd)
python=${PYTHON:-python3}
tree=$root/build/gpu
declare -A seconds=([build]=540 [tests]=420 [models]=240 [cpp]=120 [rbm]=210 [pixels]=120 [recurrent]=90 [sample]=90
                    [memcheck]=300 [racecheck]=270)

step_build() {  # the package and its modules side by side, as installed
  command -v nvcc >/dev/null || { echo "no nvcc, on the PATH or in /usr/local/cuda/bin"; return 1; }
  limited cmake -S . -B "$tree" -DCMAKE_BUILD_TYPE=Release -DGENCORE_CUDA=ON \
    "-DCMAKE_CUDA_ARCHITECTURES=${CUDAARCHS:-native}" -DGENCORE_PYTHON=ON \
    "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" "-DPython_EXECUTABLE=$(command -v "$python")" &&
    limited cmake --build "$tree" --parallel "$(nproc)" &&
    rm -rf "$tree/python" && mkdir "$tree/python" && cp -r gencore "$tree/python/" &&
    rm -f "$tree/python/gencore/"_c*.so && cp "$tree"/_core*.so "$tree"/_cuda*.so "$tree/python/gencore/" &&
    "$python" -c "import gencore; gencore.show_config()"
}

have() {  # the kernels, which are to be built first; a device and these packages
  "$python" -c "from gencore import _cuda" || return 1
  "$python" -c "from gencore import _cuda; raise SystemExit(_cuda.device_count() == 0)" || return 77
  local package
  for package in "$@"; do "$python" -c "import $package" || return 77; done
}

limited() {  # a command, for what is left of the step's time
  local left=$((deadline - SECONDS))
  ((left > 0)) || return 124
  timeout --signal=INT --kill-after=15 "$left" "$@"
}

# [LAUNCHER...] -- FILES AND OPTIONS. What other packages warn of is no failure here.
gpu_pytest() {
  local launcher=()
  for (( ; $# > 0; )); do
    [ "$1" != -- ] || { shift; break; }
    launcher+=("$1") && shift
  done
  limited "${launcher[@]}" "$python" -m pytest -q -rfE -m gpu -W default --tb=short --maxfail=40 --durations=10 \
    -p no:cacheprovider "$@"
}

in_parallel() {  # gpu_pytest by a few processes, where pytest-xdist is installed: the references take the CPU's time
  local processes=()
  "$python" -c "import xdist" 2>/dev/null && processes=(-n 4) && export GENCORE_NUM_THREADS=${GENCORE_NUM_THREADS:-4}
  gpu_pytest "$@" "${processes[@]}"
}

step_tests() {
  have && in_parallel -- -k "not real" tests/test_cuda.py tests/test_cuda_rbm.py tests/test_cuda_rounded.py \
    tests/test_cuda_recurrent.py tests/test_cuda_pixels.py
}

step_models() {
  have cupy && in_parallel -- -k "real or on_a_device_as_on_the_host" tests/test_cuda_rbm.py \
    tests/test_cuda_rounded.py tests/test_cuda_models.py tests/test_cuda_vae.py tests/test_elementwise.py
}

step_cpp() { have safetensors && GENCORE_BUILD_DIR=$tree gpu_pytest -- tests/test_cpp.py; }

# Every kernel, once, on PyTorch's tensors: memory that a package keeps when it is freed would hide accesses beyond an
# array, and PyTorch can be told to keep none.
sanitizer() {
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return 77; }
  have torch && GENCORE_EVERY_SIZE=4 PYTORCH_NO_CUDA_MEMORY_CACHING=1 gpu_pytest \
    compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all -- \
    -k "(test_device_forward or test_device_chains_of_the_grid) and torch" tests/test_cuda.py tests/test_cuda_rounded.py
}
step_memcheck() { sanitizer memcheck; }
step_racecheck() { sanitizer racecheck; }

bench() {
  local results=()
  [ ! -f "$tree/results" ] || mapfile -t results <"$tree/results"
  have torch && limited "$python" "bench/gpu_$1.py" --out "$out/gpu-$1.json" "${results[@]}"
}
step_rbm() { bench rbm; }
step_pixels() { bench pixels; }
step_recurrent() { bench recurrent; }
step_sample() { bench sample; }

# The package of the build, not the sources in this folder.
export PYTHONPATH=$tree/python${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
export PATH=$PATH:/usr/local/cuda/bin
log=$out/gpu-$(IFS=-; echo "${*:-all}").log
[ $# -gt 0 ] || set -- build tests models cpp bench sanitize
steps=()
for name in "$@"; do
  case $name in
    bench) steps+=(rbm pixels recurrent sample) ;;
    sanitize) steps+=(memcheck racecheck) ;;
    *) declare -F "step_$name" >/dev/null || { echo "no step $name" >&2; exit 2; }
       steps+=("$name") ;;
  esac
done

: >"$log"
failed=0 summary=()
for step in "${steps[@]}"; do
  deadline=$((SECONDS + seconds[$step] * ${TIMES:-1}))
  [ -z "${LIMIT:-}" ] || ((deadline < LIMIT)) || deadline=$LIMIT
  echo "=== $step" | tee -a "$log"
  begin=$SECONDS lines=$(wc -l <"$log")
  [ "$step" != build ] || rm -f "$tree/results"  # of another tree
  ("step_$step") >>"$log" 2>&1
  status=$?
  case $status in
    0) result=pass ;;
    77) result=skipped ;;
    124 | 137) result=stopped failed=1 ;;
    *) result=fail failed=1 ;;
  esac
  tail -n "+$((lines + 1))" "$log" | tail -n 15
  summary+=("$step=$result")
  echo "$step=$result after $((SECONDS - begin)) s" | tee -a "$log"
  [ ! -d "$tree" ] || { sed -i "/^$step=/d" "$tree/results" 2>/dev/null; echo "$step=$result" >>"$tree/results"; }
  [ "$step" != build ] || [ "$result" = pass ] || break
done
echo "${summary[*]}" | tee -a "$log"
exit $failed
