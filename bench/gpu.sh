#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: builds this tree with CUDA, runs the tests marked `gpu`, the same under
# compute-sanitizer, and the benchmarks beside PyTorch (and JAX where it is installed).   bench/gpu.sh [STEP...]
# Needs nvcc, cmake, and Python with numpy, pybind11, pytest, hypothesis, scipy and scikit-learn; CuPy or PyTorch for the
# tests, PyTorch for the benchmarks. Downloads nothing. gpu-sample.json, gpu-rbm.json, gpu-recurrent.json, gpu-pixels.json
# and the logs go to ${OUT:-bench/results}.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
out=$(mkdir -p "${OUT:-bench/results}" && cd "${OUT:-bench/results}" && pwd)
python=${PYTHON:-python3}
tree=$root/build/gpu
results=()

step_build() {  # for the device at hand; the package and its modules side by side, as installed
  cmake -S . -B "$tree" -DCMAKE_BUILD_TYPE=Release -DGENCORE_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=${CUDAARCHS:-native}" \
    -DGENCORE_PYTHON=ON "-Dpybind11_DIR=$("$python" -m pybind11 --cmakedir)" \
    "-DPython_EXECUTABLE=$(command -v "$python")" &&
    cmake --build "$tree" --parallel "$(nproc)" &&
    rm -rf "$tree/python" && mkdir "$tree/python" && cp -r gencore "$tree/python/" &&
    rm -f "$tree/python/gencore/"_c*.so && cp "$tree"/_core*.so "$tree"/_cuda*.so "$tree/python/gencore/" &&
    "$python" -c "import gencore; gencore.show_config()"
}

have_device() { "$python" -c "from gencore import _cuda; raise SystemExit(_cuda.device_count() == 0)" || return 77; }

gpu_tests() { have_device && "$@" "$python" -m pytest -q -m gpu -p no:cacheprovider tests/test_cuda.py \
  tests/test_cuda_rbm.py tests/test_cuda_rounded.py tests/test_cuda_recurrent.py tests/test_cuda_pixels.py \
  "${select[@]}"; }

step_tests() { select=() && gpu_tests; }

step_cpp() {  # a C++ program that links gencore::cuda
  have_device && "$python" -c "import safetensors" || return 77
  GENCORE_BUILD_DIR=$tree "$python" -m pytest -q -rs -m gpu -p no:cacheprovider tests/test_cpp.py
}

# Every kernel at every size, once. Packages that keep freed memory would hide accesses beyond an array.
sanitizer() {
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return 77; }
  select=(-k "test_device_forward or test_device_chains_of_the_grid")
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 gpu_tests compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all
}
step_memcheck() { sanitizer memcheck; }
step_racecheck() { sanitizer racecheck; }

step_bench() {
  have_device && "$python" -c "import torch" || return 77
  "$python" bench/gpu_rbm.py --out "$out/gpu-rbm.json" "${results[@]}" &&
    "$python" bench/gpu_recurrent.py --out "$out/gpu-recurrent.json" "${results[@]}" &&
    "$python" bench/gpu_pixels.py --out "$out/gpu-pixels.json" "${results[@]}" &&
    "$python" bench/gpu_sample.py --out "$out/gpu-sample.json" "${results[@]}"
}

# The package of the build, not the sources in this folder.
export PYTHONPATH=$tree/python${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1
[ $# -gt 0 ] || set -- build tests cpp memcheck racecheck bench
failed=0
for step in "$@"; do
  declare -F "step_$step" >/dev/null || { echo "no step $step" >&2; exit 2; }
  echo "=== $step"
  ("step_$step") >"$out/gpu-$step.log" 2>&1
  status=$?
  case $status in
    0) result=pass ;;
    77) result=skipped ;;
    *) result=fail failed=1 ;;
  esac
  tail -n 15 "$out/gpu-$step.log"
  results+=("$step=$result")
  [ "$step $result" != "build fail" ] || break
done
echo "${results[*]}"
exit $failed
