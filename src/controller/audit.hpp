// The chain of audit records: each carries the SHA-256 of the one before, and the newest is named by a head that is
// written with it. So a record that was changed, removed, moved or added, and a tail that was cut off, all show.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.hpp"

namespace aiv::controller {

struct AuditEntry {
  std::int64_t n = 0;
  std::string time;
  std::string actor;
  std::string action;
  std::string object;
};

// The record as it is stored; `prev` is of the record before, empty for the first.
std::string audit_text(const AuditEntry& entry, const std::string& prev);
std::string audit_hash(const std::string& text);

struct AuditVerdict {
  std::int64_t records = 0;
  std::int64_t first = 0;  // the oldest that is kept
  std::int64_t last = 0;
  std::int64_t bad = 0;    // number of the first that does not fit, 0 = none
  std::string reason;      // of it, or of a missing tail; empty = the chain is whole
};
// `texts` as stored, oldest first; `head` is {"n","sha256"}. Records from before there was a chain (no "prev") are
// taken as they are, but only at the beginning.
AuditVerdict verify_audit(const std::vector<std::string>& texts, const std::string& head);

}  // namespace aiv::controller
