// The chain of audit records shows whatever was done to it; events outlive a restart.
#include "controller/audit.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "api_rig.hpp"
#include "controller/event_file.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

struct Chain {
  std::vector<std::string> texts;
  std::string head;
};

Chain chain_of(int records) {
  Chain chain;
  std::string hash;
  for (int i = 1; i <= records; ++i) {
    chain.texts.push_back(audit_text({i, "2026-01-01T00:00:00.000Z", "key/a", "deployment.put", "deployment/x"}, hash));
    hash = audit_hash(chain.texts.back());
  }
  chain.head = R"({"n":)" + std::to_string(records) + R"(,"sha256":")" + hash + "\"}";
  return chain;
}

TEST(Audit, AWholeChainIsWholeAlsoWhenItsOldestRecordsWereForgotten) {
  Chain chain = chain_of(20);
  EXPECT_EQ(verify_audit(chain.texts, chain.head).reason, "");
  chain.texts.erase(chain.texts.begin(), chain.texts.begin() + 7);
  const AuditVerdict verdict = verify_audit(chain.texts, chain.head);
  EXPECT_EQ(verdict.reason, "");
  EXPECT_EQ(verdict.first, 8);
  EXPECT_EQ(verdict.last, 20);
}

TEST(Audit, ARecordThatWasEditedRemovedMovedOrAddedIsNamed) {
  const Chain good = chain_of(20);
  for (std::size_t i = 0; i < good.texts.size(); ++i) {
    Chain edited = good;
    edited.texts[i].replace(edited.texts[i].find("key/a"), 5, "key/b");
    const AuditVerdict verdict = verify_audit(edited.texts, edited.head);
    EXPECT_EQ(verdict.bad, static_cast<std::int64_t>(std::min<std::size_t>(i + 2, 20))) << "record " << i + 1;
    if (i == 0) continue;
    Chain removed = good;
    removed.texts.erase(removed.texts.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NE(verify_audit(removed.texts, removed.head).bad, 0) << "record " << i + 1 << " removed";
    Chain swapped = good;
    std::swap(swapped.texts[i - 1], swapped.texts[i]);
    EXPECT_NE(verify_audit(swapped.texts, swapped.head).bad, 0) << "record " << i + 1 << " moved";
  }
  Chain cut = good;
  cut.texts.resize(15);
  EXPECT_EQ(verify_audit(cut.texts, cut.head).bad, 16) << "a tail that was cut off";
  Chain garbage = good;
  garbage.texts[3] = "not json";
  EXPECT_EQ(verify_audit(garbage.texts, garbage.head).bad, 4);
  EXPECT_NE(verify_audit(good.texts, "").bad, 0) << "without its head";
}

TEST(Audit, TheControllersOwnChainIsWholeAfterChangesAndRefusedOnesLeaveNoGap) {
  test::Rig rig;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"s)" + std::to_string(i) + "\"}").status, 201);
    rig.memory->fail_next({TxnOutcome::kUnavailable, false});
    EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"lost"})").status, 503);
    rig.memory->fail_next({TxnOutcome::kUnknown, i % 2 == 0});
    EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"perhaps"})").status, 503);
  }
  const test::Answer audit = rig.call("GET", "/aiv/v1/audit");
  ASSERT_EQ(audit.status, 200);
  std::vector<std::string> texts;
  for (const Json& item : audit.body.at("items")) texts.push_back(item.at("record"));
  const AuditVerdict verdict = verify_audit(texts, audit.body.at("head"));
  EXPECT_EQ(verdict.reason, "") << "record " << verdict.bad;
  EXPECT_EQ(verdict.records, 8) << "five that were stored, and three of unknown outcome that were";
}

TEST(EventFile, EventsAreReadBackInOrderAndACutLastLineIsLeftOut) {
  const Scratch scratch;
  const std::string path = scratch.path + "/events.jsonl";
  ASSERT_TRUE(append_event_file(path, {{1, 5, "a.b", "node/x", "why\n\"so\"", ""}, {2, 6, "c.d", "node/y", "", "a.b"}}));
  ASSERT_TRUE(append_event_file(path, {{3, 7, "e.f", "node/z", "", ""}}));
  std::ofstream(path, std::ios::app) << R"({"seq":4,"unix_ms":8,"ki)";
  const auto events = read_event_file(path, 10);
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].reason, "why\n\"so\"");
  EXPECT_EQ(events[2].seq, 3);
  EXPECT_EQ(read_event_file(path, 2).front().seq, 2);
  EventLog log;
  log.begin(1);
  log.add({0, 9, "now", "x", "", ""});
  log.restore(events);
  EXPECT_EQ(log.since(0, 10).size(), 4U);
  EXPECT_EQ(log.since(0, 10).back().kind, "now");
}

}  // namespace
}  // namespace aiv::controller
