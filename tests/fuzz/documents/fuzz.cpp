// Any bytes as a document of another process: what a node says of itself, what it is told, what a gateway is told. One that
// is accepted is written and read back the same.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/json.hpp"
#include "wire/documents.hpp"

namespace {

template <class Document, class FromJson>
void check(const aiv::Json& json, FromJson from_json) {
  const aiv::Result<Document> read = from_json(json);
  if (!read) {
    if (read.error().reason.empty()) std::abort();
    return;
  }
  const auto text = aiv::parse_json(aiv::dump_json(aiv::wire::to_json(*read)));
  if (!text) std::abort();
  const aiv::Result<Document> again = from_json(*text);
  if (!again || !(*again == *read)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const auto json = aiv::parse_json(bytes);
  if (!json) return 0;
  check<aiv::NodeObserved>(*json, aiv::wire::node_observed_from_json);
  check<aiv::NodeDesired>(*json, aiv::wire::node_desired_from_json);
  check<aiv::RouteTable>(*json, aiv::wire::route_table_from_json);
  return 0;
}
