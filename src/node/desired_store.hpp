// The last desired document that this node accepted, kept across restarts so that it can serve on without a
// controller, and so that an older leader can never undo a newer one.
#pragma once
#include <optional>
#include <string>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv::node {

// A desired document as JSON, received or kept: what is longer is refused.
inline constexpr std::size_t kDesiredBytesMax = std::size_t{8} << 20;

// {"sha256":..,"document":{..}}; temp file, fsync, rename, fsync of the folder. Blocking.
Result<> save_desired(const std::string& path, const NodeDesired& document);
// nullopt if there is none; an error for a copy that is not what was written (it counts as none, and is
// said).
Result<std::optional<NodeDesired>> load_desired(const std::string& path);

struct DesiredFault {
  std::string field;
  std::string reason;
};
// What is wrong with a document as such, before anything is done: the wrong node, a spec that must not run,
// an id twice.
std::optional<DesiredFault> check_desired(const NodeDesired& document, const std::string& node_id);

}  // namespace aiv::node
