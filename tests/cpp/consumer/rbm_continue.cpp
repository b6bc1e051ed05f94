// Continues the Gibbs chains of an RBM that Python trained and saved, bit for bit as Python would have:
//   rbm_continue MODEL STEPS STATES
// writes the new states, (n_chains, n_visible) bytes of 0 and 1, to the file STATES and prints the free energy of each.
#include <gencore/gencore.h>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

static void continue_chains(const std::string& model_path, std::int64_t steps, const std::string& states_path) {
  const auto model = gencore::ModelFile::read(model_path);
  if (model.metadata("kind") != "RBM") throw gencore::Error(model_path + " holds no RBM");
  const auto weight = model.matrix("weight");
  const auto visible_bias = model.vector("visible_bias"), hidden_bias = model.vector("hidden_bias");
  const auto chains = model.states("chains");
  std::vector<std::uint8_t> states(chains.data, chains.data + chains.size());
  const float beta = 1;

  gencore::rbm::GibbsChain gibbs;
  gibbs.w = weight;
  gibbs.b = visible_bias;
  gibbs.c = hidden_bias;
  gibbs.v = {states.data(), {chains.shape[0], chains.shape[1]}};
  gibbs.v_out = {states.data(), {chains.shape[0], chains.shape[1]}};
  gibbs.beta = {&beta, {1}};
  gibbs.steps = steps;
  gibbs.key = gencore::make_key(std::stoull(model.metadata("chain_key")));
  gibbs.first_step = std::stoll(model.metadata("chain_step"));
  gencore::rbm::run(gibbs);

  std::vector<double> energies(static_cast<std::size_t>(chains.shape[0]));
  gencore::rbm::FreeEnergy free_energy;
  free_energy.w = weight;
  free_energy.b = visible_bias;
  free_energy.c = hidden_bias;
  free_energy.v = gibbs.v_out;
  free_energy.out = {energies.data(), {chains.shape[0]}};
  gencore::rbm::run(free_energy);

  std::ofstream out(states_path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(states.data()), static_cast<std::streamsize>(states.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + states_path);
  for (const double energy : energies) std::printf("%.17g\n", energy);
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: rbm_continue MODEL STEPS STATES\n");
    return 2;
  }
  try {
    continue_chains(argv[1], std::stoll(argv[2]), argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rbm_continue: %s\n", error.what());
    return 1;
  }
}
