#include "isa.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "gencore/error.h"
#include "gencore/runtime.h"

namespace gencore::runtime {

bool level_built(Level level) {
#if defined(GENCORE_BUILT_AVX2)
  if (level == Level::avx2) return true;
#endif
#if defined(GENCORE_BUILT_AVX512)
  if (level == Level::avx512) return true;
#endif
  return level == Level::baseline;
}

bool level_supported(Level level) {
  if (level == Level::baseline) return true;
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("lzcnt") &&
                    __builtin_cpu_supports("popcnt");
  if (level == Level::avx2) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

static std::string usable_levels() {
  std::string names;
  for (const std::string& level : isa_levels()) names += (names.empty() ? "" : ", ") + level;
  return names;
}

static Level choose_level() {
  if (const char* wanted = std::getenv("GENCORE_ISA"); wanted != nullptr && *wanted != '\0') {
    for (int i = 0; i < level_count; ++i) {
      if (std::strcmp(wanted, level_names[i]) != 0) continue;
      const Level level = static_cast<Level>(i);
      if (!level_built(level))
        check::fail("gencore", "GENCORE_ISA", "a level in this build (" + usable_levels() + ")", wanted);
      if (!level_supported(level)) {
        check::fail("gencore", "GENCORE_ISA", "a level that this processor runs (" + usable_levels() + ")", wanted);
      }
      return level;
    }
    check::fail("gencore", "GENCORE_ISA", "one of baseline, avx2, avx512", std::string("'") + wanted + "'");
  }
  for (int i = level_count - 1; i > 0; --i) {
    const Level level = static_cast<Level>(i);
    if (level_built(level) && level_supported(level)) return level;
  }
  return Level::baseline;
}

Level active_level() {
  static const Level level = choose_level();
  return level;
}

}  // namespace gencore::runtime

namespace gencore {

const char* isa() { return runtime::level_names[static_cast<int>(runtime::active_level())]; }

std::vector<std::string> isa_levels() {
  std::vector<std::string> names;
  for (int i = 0; i < runtime::level_count; ++i) {
    const auto level = static_cast<runtime::Level>(i);
    if (runtime::level_built(level) && runtime::level_supported(level)) names.emplace_back(runtime::level_names[i]);
  }
  return names;
}

}  // namespace gencore
