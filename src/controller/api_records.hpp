// The two questions that every kind of record answers alike: all of them, and one by its id.
#pragma once
#include <string>
#include <string_view>

#include "base/units.hpp"
#include "controller/api.hpp"

namespace aiv::controller {

[[nodiscard]] inline ApiReply reply_not_found(std::string_view kind, const std::string& id) {
  return reply_error({ErrorCode::kNotFound, "there is no such " + std::string(kind), printable(id, 128)});
}

// `records` is a map by id; `view` makes the JSON of one.
template <class Record, class Records>
ApiReply reply_all(const ApiContext& context, const Records& records,
                   Json (*view)(const Cluster&, const Record&)) {
  Json items = Json::array();
  for (const auto& [id, record] : records) items.push_back(view(context.cluster, record));
  return reply_list(context, std::move(items));
}

template <class Record, class Records>
ApiReply reply_one(const ApiContext& context, const Records& records, const std::string& id,
                   std::string_view kind, Json (*view)(const Cluster&, const Record&)) {
  const auto found = records.find(id);
  if (found == records.end()) return reply_not_found(kind, id);
  return {200, view(context.cluster, found->second)};
}

}  // namespace aiv::controller
