// The nearest known name for one that was mistyped.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace aiv::cli {

// Levenshtein distance in bytes.
std::size_t edit_distance(std::string_view a, std::string_view b);
// The candidate that differs least from `text`, if it differs in at most a third of its letters; else empty.
std::string nearest(std::string_view text, const std::vector<std::string>& candidates);

}  // namespace aiv::cli
