// What a process asks its host: the wall clock and the environment.
#pragma once
#include <cstdint>
#include <string>

namespace aiv {

// Milliseconds since 1970 by the wall clock, which may be set back: for stamps people read, never for
// deadlines.
std::int64_t unix_ms();
// A variable of the environment; empty when it is not set.
std::string environment(const char* name);

}  // namespace aiv
