#include "controller/audit.hpp"

#include "base/hash.hpp"

namespace aiv::controller {

std::string audit_text(const AuditEntry& entry, const std::string& prev) {
  Json json;
  json["n"] = entry.n;
  json["time"] = entry.time;
  json["actor"] = entry.actor;
  json["action"] = entry.action;
  json["object"] = entry.object;
  json["prev"] = prev;
  return dump_json(json);
}

std::string audit_hash(const std::string& text) { return sha256_hex(text); }

AuditVerdict verify_audit(const std::vector<std::string>& texts, const std::string& head) {
  AuditVerdict verdict;
  std::string hash;      // of the record before
  bool chained = false;  // a record with "prev" was seen
  const auto bad = [&](std::int64_t n, std::string reason) {
    verdict.bad = n;
    verdict.reason = std::move(reason);
    return verdict;
  };
  for (const std::string& text : texts) {
    const std::int64_t expected = verdict.last + 1;
    const auto json = parse_json(text);
    if (!json || !json->is_object()) return bad(expected, "cannot be read");
    const std::int64_t n = json->value("n", std::int64_t{0});
    if (verdict.records > 0 && n != expected) return bad(expected, "is missing, or out of order");
    const bool has_prev = json->contains("prev") && (*json)["prev"].is_string();
    if (chained && !has_prev) return bad(n, "does not name the one before");
    // What the oldest one names may have been forgotten with age.
    if (has_prev && verdict.records > 0 && (*json)["prev"] != hash) return bad(n, "does not follow from the one before");
    chained = chained || has_prev;
    if (verdict.records == 0) verdict.first = n;
    ++verdict.records;
    verdict.last = n;
    hash = audit_hash(text);
  }
  if (!chained) return verdict;
  const auto json = parse_json(head);
  if (!json || !json->is_object()) return bad(verdict.last, "has no head that names it");
  const std::int64_t newest = json->value("n", std::int64_t{0});
  if (newest != verdict.last) return bad(verdict.last + 1, "is missing: the newest was " + std::to_string(newest));
  if (json->value("sha256", "") != hash) return bad(verdict.last, "was changed after it was written");
  return verdict;
}

}  // namespace aiv::controller
