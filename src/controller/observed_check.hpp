// What a node says about itself is input: bounded and sane before anything is decided on it.
#pragma once
#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv::controller {

inline constexpr std::size_t kDevicesMax = 64;
inline constexpr std::size_t kReplicasMax = 1024;
inline constexpr Bytes kVramMax = Bytes{4} << 40;

// `node` is the id of the link's certificate. Errors name the field; the document is then dropped as a whole.
Result<> check_observed(const NodeObserved& document, const std::string& node);

}  // namespace aiv::controller
