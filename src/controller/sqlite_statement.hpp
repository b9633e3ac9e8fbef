// A prepared statement, and the sums that guard rows. Used by store_sqlite alone.
#pragma once
#include <sqlite3.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace aiv::controller {

class Statement {
 public:
  Statement() = default;
  Statement(sqlite3* db, const char* sql) { code_ = sqlite3_prepare_v3(db, sql, -1, 0, &statement_, nullptr); }
  Statement(Statement&& other) noexcept : statement_(other.statement_), code_(other.code_) {
    other.statement_ = nullptr;
  }
  Statement& operator=(Statement&& other) noexcept {
    std::swap(statement_, other.statement_);
    std::swap(code_, other.code_);
    return *this;
  }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  // Text is bound as BLOB: keys compare byte by byte, and no encoding is guessed.
  Statement& bind(int index, std::string_view value) {
    sqlite3_bind_blob64(statement_, index, value.empty() ? "" : value.data(), value.size(), SQLITE_TRANSIENT);
    return *this;
  }
  Statement& bind(int index, std::int64_t value) {
    sqlite3_bind_int64(statement_, index, value);
    return *this;
  }
  // SQLITE_ROW, SQLITE_DONE or an error.
  int step() { return statement_ == nullptr ? (code_ == SQLITE_OK ? SQLITE_MISUSE : code_) : sqlite3_step(statement_); }
  void reset() {
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  [[nodiscard]] std::string blob(int column) const {
    const void* data = sqlite3_column_blob(statement_, column);
    const int size = sqlite3_column_bytes(statement_, column);
    return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), static_cast<std::size_t>(size));
  }
  [[nodiscard]] std::int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }

 private:
  sqlite3_stmt* statement_ = nullptr;
  int code_ = SQLITE_OK;
};

// A SHA-256 as four numbers, added and subtracted lane by lane modulo 2^64: the root does not depend on the order
// in which rows were written. Against decay and mistakes, not against somebody who computes collisions.
struct RowSum {
  std::array<std::uint64_t, 4> lanes{};
  RowSum& operator+=(const RowSum& other) {
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] += other.lanes[i];
    return *this;
  }
  RowSum& operator-=(const RowSum& other) {
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] -= other.lanes[i];
    return *this;
  }
  friend bool operator==(const RowSum&, const RowSum&) = default;
  [[nodiscard]] std::string bytes() const;
  static RowSum from_bytes(std::string_view bytes);
};

// Sum over the fields of one row; lengths are part of it, so bytes cannot wander between fields.
RowSum row_sum(std::string_view first, std::string_view second, std::int64_t a, std::int64_t b);

}  // namespace aiv::controller
