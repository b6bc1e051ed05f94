// Continues the Gibbs chains of an RBM that Python trained and saved, on a CUDA device:
//   chains_on_device MODEL STEPS STATES
// writes the new states, (n_chains, n_visible) bytes of 0 and 1, to the file STATES. Without a device it says so and
// returns 77.
#include <cuda_runtime.h>
#include <gencore/cuda.h>
#include <gencore/gencore.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

static void must(cudaError_t error) {
  if (error != cudaSuccess) throw gencore::Error(cudaGetErrorString(error));
}

// A copy in the memory of the current device.
template <class T>
class OnDevice {
 public:
  OnDevice(const T* host, std::int64_t n, cudaStream_t stream) : bytes_(static_cast<std::size_t>(n) * sizeof(T)) {
    must(cudaMalloc(&data_, bytes_));
    must(cudaMemcpyAsync(data_, host, bytes_, cudaMemcpyHostToDevice, stream));
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { cudaFree(data_); }
  T* data() const { return static_cast<T*>(data_); }
  void to_host(T* host, cudaStream_t stream) const {
    must(cudaMemcpyAsync(host, data_, bytes_, cudaMemcpyDeviceToHost, stream));
  }

 private:
  std::size_t bytes_;
  void* data_ = nullptr;
};

static void continue_chains(const std::string& model_path, std::int64_t steps, const std::string& states_path) {
  const auto model = gencore::ModelFile::read(model_path);
  const auto weight = model.matrix("weight");
  const auto visible_bias = model.vector("visible_bias"), hidden_bias = model.vector("hidden_bias");
  const auto chains = model.states("chains");
  const float one = 1;

  cudaStream_t stream = nullptr;
  must(cudaStreamCreate(&stream));
  const OnDevice<float> w(weight.data, weight.size(), stream), b(visible_bias.data, visible_bias.size(), stream),
      c(hidden_bias.data, hidden_bias.size(), stream), beta(&one, 1, stream);
  const OnDevice<std::uint8_t> v(chains.data, chains.size(), stream);

  gencore::rbm::GibbsChain gibbs;
  gibbs.device = {gencore::DeviceKind::cuda, 0};
  gibbs.stream = stream;
  gibbs.w = {w.data(), {weight.shape[0], weight.shape[1]}};
  gibbs.b = {b.data(), {visible_bias.size()}};
  gibbs.c = {c.data(), {hidden_bias.size()}};
  gibbs.v_out = {v.data(), {chains.shape[0], chains.shape[1]}};
  gibbs.v = gibbs.v_out;
  gibbs.beta = {beta.data(), {1}};
  gibbs.steps = steps;
  gibbs.key = gencore::make_key(std::stoull(model.metadata("chain_key")));
  gibbs.first_step = std::stoll(model.metadata("chain_step"));
  gencore::rbm::run(gibbs);  // returns when the kernels are queued

  std::vector<std::uint8_t> states(static_cast<std::size_t>(chains.size()));
  v.to_host(states.data(), stream);
  must(cudaStreamSynchronize(stream));
  must(cudaStreamDestroy(stream));
  std::ofstream file(states_path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(states.data()), static_cast<std::streamsize>(states.size()));
  if (!file) throw gencore::Error("cannot write " + states_path);
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: chains_on_device MODEL STEPS STATES\n");
    return 2;
  }
  try {
    gencore::cuda::load();  // from here on, ops on a CUDA device find their kernels
    if (gencore::cuda::device_count() == 0) {
      std::fprintf(stderr, "chains_on_device: %s\n", gencore::cuda::describe().c_str());
      return 77;
    }
    continue_chains(argv[1], std::stoll(argv[2]), argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "chains_on_device: %s\n", error.what());
    return 1;
  }
  return 0;
}
