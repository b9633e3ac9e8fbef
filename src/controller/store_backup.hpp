// Copies of the state on other paths, and back.
//
// A copy is one file that verifies by itself (row sums and root: store_sqlite.hpp). It holds keys and tokens as hashes
// only; the authority's private key (DIR/ca) is not in it.
#pragma once
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace aiv::controller {

struct BackupFacts {
  std::int64_t revision = 0;
  std::int64_t epoch = 0;
  std::int64_t bytes = 0;
};

// Writes the state of `data_dir` to `file` (0600), which must not exist; the server may run meanwhile. The copy is
// verified before it gets its name. kCorrupt: the state itself does not verify.
Result<BackupFacts> backup_state(const std::string& data_dir, const std::string& file);
// What a copy holds; kCorrupt or kRefused (newer schema) with the reason.
Result<BackupFacts> check_backup(const std::string& file);
// Puts a copy in the place of the state. The files that were there are kept beside it with ".replaced-TIME". The epoch
// goes on above every one that was ever seen here, or agents and gateway would refuse the restored controller as an old
// one. kConflict: the server runs. Nothing is touched before the copy has been verified.
struct Restored {
  BackupFacts facts;
  std::string kept;  // the old state.db under its new name; empty if there was none
};
Result<Restored> restore_state(const std::string& data_dir, const std::string& file);

}  // namespace aiv::controller
