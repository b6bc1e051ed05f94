// The README's example: digits.safetensors, trained by Python, sampled by C++.
#include <gencore/gencore.h>

#include <cstdio>
#include <vector>

int main() {
  const auto model = gencore::ModelFile::read("digits.safetensors");
  const auto chains = model.states("chains");
  std::vector<std::uint8_t> v(chains.data, chains.data + chains.size());
  const float beta = 1;  // inverse temperature

  gencore::rbm::GibbsChain gibbs;
  gibbs.w = model.matrix("weight");
  gibbs.b = model.vector("visible_bias");
  gibbs.c = model.vector("hidden_bias");
  gibbs.v_out = {v.data(), {chains.shape[0], chains.shape[1]}};
  gibbs.v = gibbs.v_out;
  gibbs.beta = {&beta, {1}};
  gibbs.steps = 1000;
  gibbs.key = gencore::make_key(7);
  gencore::rbm::run(gibbs);  // checks every shape, then takes the kernel for this processor

  for (std::int64_t i = 0; i < chains.shape[1]; ++i) {
    std::printf(i % 8 == 7 ? "%c\n" : "%c", v[i] ? '#' : '.');
  }
}
