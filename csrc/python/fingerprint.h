// A hash of an array's bytes, by which autograd notices that memory it watches was edited.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <cstring>

namespace gencore::python {

// Eight chains of xor and odd product, each a bijection of its state: any change of one word changes the hash, and as many
// chains as the multiplier has stages read some 30 GB/s.
inline std::uint64_t fingerprint(const pybind11::array& array) {
  constexpr std::uint64_t odd = 0x9E3779B97F4A7C15u;
  if ((array.flags() & (pybind11::array::c_style | pybind11::array::f_style)) == 0) {
    return fingerprint(pybind11::module_::import("numpy").attr("ascontiguousarray")(array));
  }
  const auto* bytes = static_cast<const unsigned char*>(array.data());
  const auto n = static_cast<std::size_t>(array.nbytes());
  std::uint64_t hash[8] = {1, 2, 3, 4, 5, 6, 7, 8}, word[8] = {};
  std::size_t i = 0;
  for (; i + sizeof word <= n; i += sizeof word) {
    std::memcpy(word, bytes + i, sizeof word);
    for (int j = 0; j < 8; ++j) hash[j] = (hash[j] ^ word[j]) * odd;
  }
  std::memset(word, 0, sizeof word);
  if (n > i) std::memcpy(word, bytes + i, n - i);
  std::uint64_t all = n;
  for (int j = 0; j < 8; ++j) {
    const std::uint64_t h = (hash[j] ^ word[j]) * odd;
    all = (all ^ h ^ (h >> 29)) * odd;
  }
  return all;
}

}  // namespace gencore::python
