#include "controller/store.hpp"

#include <algorithm>
#include <iterator>
#include <set>

namespace aiv::controller {

std::string prefix_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty()) {
    const auto last = static_cast<unsigned char>(end.back());
    if (last < 0xff) {
      end.back() = static_cast<char>(last + 1);
      return end;
    }
    end.pop_back();
  }
  return "\xff";
}

void Txn::add(Txn other) {
  std::ranges::move(other.compares, std::back_inserter(compares));
  std::ranges::move(other.ops, std::back_inserter(ops));
}

std::string txn_over_limit(const Txn& txn) {
  if (txn.ops.size() + txn.compares.size() > kTxnOpsMax) {
    return "a transaction has at most " + std::to_string(kTxnOpsMax) + " compares and writes";
  }
  std::size_t bytes = 0;
  std::set<std::string_view> written;
  for (const Op& op : txn.ops) {
    if (op.key.empty() || op.key.size() > kKeyBytesMax) return "a key has 1 to 512 bytes";
    if (op.value.size() > kValueBytesMax) return "a value has at most 256 KiB; " + op.key + " is larger";
    if (!written.insert(op.key).second) return "the key " + op.key + " is written twice in one transaction";
    bytes += op.key.size() + op.value.size();
  }
  for (const Compare& compare : txn.compares) {
    if (compare.key.empty() || compare.key.size() > kKeyBytesMax) return "a key has 1 to 512 bytes";
    bytes += compare.key.size() + compare.value.size();
  }
  if (bytes > kTxnBytesMax) return "a transaction has at most 1 MiB";
  return {};
}

}  // namespace aiv::controller
