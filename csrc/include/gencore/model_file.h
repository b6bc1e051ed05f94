// Models that Python trained and saved (safetensors): named arrays and one JSON text.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gencore/error.h"
#include "gencore/view.h"

namespace gencore {

struct StoredTensor {
  std::string dtype;  // safetensors' names: "F32", "U8", "I64", ...
  std::vector<std::int64_t> shape;
  std::vector<unsigned char> bytes;
};

// A model file in memory. Reading is strict: a malformed file, a missing name, another dtype or rank raise gencore::Error.
class GENCORE_API ModelFile {
 public:
  static ModelFile read(const std::string& path);

  std::vector<std::string> names() const;
  const std::string& metadata(const std::string& key) const;  // text of the header's __metadata__[key]
  Vector<const float> vector(const std::string& name) const;
  Matrix<const float> matrix(const std::string& name) const;
  Matrix<const std::uint8_t> states(const std::string& name) const;

 private:
  const StoredTensor& find(const std::string& name, const char* dtype, std::size_t rank) const;
  std::string path_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace gencore
