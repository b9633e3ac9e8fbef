#include "node/desired_store.hpp"

#include <set>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "core/engine_flags.hpp"
#include "wire/documents.hpp"

namespace aiv::node {
Result<> save_desired(const std::string& path, const NodeDesired& document) {
  Json body = wire::to_json(document);
  const std::string sum = sha256_hex(dump_json(body));
  Json file = {{"sha256", sum}, {"document", std::move(body)}};
  return write_file_durably(path, dump_json(file), 0600);
}

Result<std::optional<NodeDesired>> load_desired(const std::string& path) {
  const auto text = read_file(path, kDesiredBytesMax);
  if (!text && text.error().code == ErrorCode::kNotFound) return std::optional<NodeDesired>{};
  if (!text) return std::unexpected(text.error());
  auto json = parse_json(*text);
  if (!json) return fail(ErrorCode::kCorrupt, json.error().message(), path);
  if (!json->is_object() || !json->contains("document") || !json->contains("sha256") ||
      !(*json)["sha256"].is_string())
    return fail(ErrorCode::kCorrupt, "is not a desired document", path);
  const Json& body = (*json)["document"];
  if (sha256_hex(dump_json(body)) != (*json)["sha256"].get<std::string>())
    return fail(ErrorCode::kCorrupt, "does not match its digest", path);
  auto document = wire::node_desired_from_json(body);
  if (!document) return std::unexpected(document.error());
  return std::optional<NodeDesired>(std::move(*document));
}

std::optional<DesiredFault> check_desired(const NodeDesired& document, const std::string& node_id) {
  if (document.node != node_id) return DesiredFault{"node", "is for node " + document.node};
  std::set<std::string> ids;
  for (std::size_t i = 0; i < document.replicas.size(); ++i) {
    const std::string at = "replicas[" + std::to_string(i) + "]";
    const ReplicaSpec& spec = document.replicas[i];
    if (const auto sound = check_spec(spec); !sound)
      return DesiredFault{at + "." + sound.error().where, sound.error().reason};
    if (!ids.insert(spec.id).second) return DesiredFault{at + ".id", "is named twice"};
  }
  return std::nullopt;
}

}  // namespace aiv::node
