#include "cli/table.hpp"

#include <algorithm>

#include "base/units.hpp"

#include <algorithm>

namespace aiv::cli {

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], display_width(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - display_width(row[i]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string text_at(const Json& item, const char* key) {
  const auto it = item.find(key);
  return it != item.end() && it->is_string() ? printable(it->get<std::string>()) : "";
}

std::int64_t number_at(const Json& item, const char* key) {
  const auto it = item.find(key);
  return it != item.end() && it->is_number() ? it->get<std::int64_t>() : 0;
}

}  // namespace aiv::cli
