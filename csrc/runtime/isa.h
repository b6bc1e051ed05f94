// ISA levels and what the processor offers.
#pragma once

namespace gencore::runtime {

enum class Level : int { baseline = 0, avx2 = 1, avx512 = 2 };
constexpr int level_count = 3;
constexpr const char* level_names[level_count] = {"baseline", "avx2", "avx512"};

bool level_built(Level level);      // this binary contains it
bool level_supported(Level level);  // this processor runs it
Level active_level();               // highest of both, or GENCORE_ISA

}  // namespace gencore::runtime
