// The load for bench/gateway: one thread, epoll, HTTP/1.1 to one address, in two shapes:
//
//   requests   N connections, each sends the next small request when the answer to the last one is there
//   streams    N connections, one long event stream each
//
// Latencies (p50, p99) are those of whole answers, or the ages of tokens on arrival where the fake engine stamps them
// ("#fake stamp=1"). It counts what arrived within a window, after chunk framing was undone, and reads the CPU time of the
// watched processes from /proc/PID/task/*/schedstat at both ends of the same window. Wall times on a busy
// machine mostly measure the queue for the processor; CPU time per unit of work does not.
//
// usage: gateway_load requests|streams --port N [--path P] [--key K] [--header H]... --body JSON [--body JSON]...
// --connections N --warmup-ms
// N
//                     --window-ms N [--watch NAME=PID[,PID...]]...
// Prints one JSON object. Exit 1 when nothing could be counted.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr std::ptrdiff_t kConnectionsPerAddress = 900;

std::int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

struct Settings {
  bool streams = false;
  int port = 0;
  std::string path = "/v1/chat/completions";
  std::string key;
  std::vector<std::string> headers;  // "name: value", sent with each request
  std::vector<std::string> bodies;  // of connection i: i modulo their number
  int connections = 1;
  std::int64_t warmup_ms = 500;
  std::int64_t window_ms = 2000;
  std::map<std::string, std::vector<int>> watched;
};

// Nanoseconds on a processor so far, all threads of a process. 0 when it is gone.
std::int64_t cpu_ns(int pid) {
  std::int64_t sum = 0;
  const auto folder = "/proc/" + std::to_string(pid) + "/task";
  DIR* directory = opendir(folder.c_str());
  if (directory == nullptr) return 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] == '.') continue;
    const auto path = folder + "/" + entry->d_name + "/schedstat";
    if (FILE* file = std::fopen(path.c_str(), "re")) {
      long long run = 0;
      if (std::fscanf(file, "%lld", &run) == 1) sum += run;
      std::fclose(file);
    }
  }
  closedir(directory);
  return sum;
}

std::map<std::string, std::int64_t> cpu_of(const std::map<std::string, std::vector<int>>& watched) {
  std::map<std::string, std::int64_t> result;
  for (const auto& [name, pids] : watched)
    for (const int pid : pids) result[name] += cpu_ns(pid);
  return result;
}

// Undoes HTTP/1.1 framing as bytes come, and counts events (or whole answers).
class ResponseReader {
 public:
  enum class State { kHead, kLength, kChunkSize, kChunkData, kChunkEnd, kTrailer, kDone, kBad };
  void reset() { *this = ResponseReader{}; }

  // Consumes `bytes`; stops behind the end of one answer and returns how much was used.
  std::size_t feed(std::string_view bytes) {
    std::size_t used = 0;
    while (used < bytes.size() && state_ != State::kDone && state_ != State::kBad)
      used += step(bytes.substr(used));
    return used;
  }

  [[nodiscard]] State state() const { return state_; }
  [[nodiscard]] int status() const { return status_; }
  std::int64_t take_events() { return std::exchange(events_, 0); }
  [[nodiscard]] bool saw_error() const { return error_; }

 private:
  std::size_t step(std::string_view bytes) {
    switch (state_) {
      case State::kHead:
        return head(bytes);
      case State::kLength:
      case State::kChunkData:
        return data(bytes);
      case State::kChunkSize:
        return line(bytes, true);
      case State::kChunkEnd:
      case State::kTrailer:
        return line(bytes, false);
      case State::kDone:
      case State::kBad:
        break;
    }
    return bytes.size();
  }

  std::size_t head(std::string_view bytes) {
    const auto before = line_.size();
    line_ += bytes;
    const auto end = line_.find("\r\n\r\n");
    if (end == std::string::npos) {
      if (line_.size() > 65'536) state_ = State::kBad;
      return bytes.size();
    }
    const auto used = end + 4 - before;
    std::string text = line_.substr(0, end);
    for (auto& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    status_ = text.size() > 12 ? std::atoi(text.c_str() + 9) : 0;
    const auto length = text.find("content-length:");
    if (text.find("transfer-encoding: chunked") != std::string::npos) {
      state_ = State::kChunkSize;
    } else if (length != std::string::npos) {
      left_ = static_cast<std::size_t>(std::strtoull(text.c_str() + length + 15, nullptr, 10));
      state_ = left_ == 0 ? State::kDone : State::kLength;
    } else {
      state_ = State::kBad;
    }
    line_.clear();
    return used;
  }

  std::size_t data(std::string_view bytes) {
    const auto n = std::min(left_, bytes.size());
    count(bytes.substr(0, n));
    left_ -= n;
    if (left_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kChunkEnd;
    return n;
  }

  std::size_t line(std::string_view bytes, bool is_size) {
    const auto end = bytes.find('\n');
    if (end == std::string_view::npos) {
      line_ += bytes;
      return bytes.size();
    }
    line_ += bytes.substr(0, end);
    if (is_size) {
      left_ = static_cast<std::size_t>(std::strtoull(line_.c_str(), nullptr, 16));
      state_ = left_ == 0 ? State::kTrailer : State::kChunkData;
    } else if (state_ == State::kChunkEnd) {
      state_ = State::kChunkSize;
    } else if (line_.empty() || line_ == "\r") {
      state_ = State::kDone;
    }
    line_.clear();
    return end + 1;
  }

  // An event ends with an empty line; ends may be split between reads.
  void count(std::string_view text) {
    if (text.find("\"error\"") != std::string_view::npos) error_ = true;
    while (!text.empty()) {
      const auto at = text.find('\n');
      if (at == std::string_view::npos) {
        newline_ = false;
        return;
      }
      if (at == 0 && newline_) {
        ++events_;
        newline_ = false;
      } else {
        newline_ = true;
      }
      text.remove_prefix(at + 1);
    }
  }

  State state_ = State::kHead;
  int status_ = 0;
  std::size_t left_ = 0;
  std::string line_;
  std::int64_t events_ = 0;
  bool newline_ = false;
  bool error_ = false;
};

struct Connection {
  int fd = -1;
  ResponseReader reader;
  std::int64_t sent_ns = 0;
};

class Load {
 public:
  explicit Load(const Settings& settings) : settings_(settings) {
    std::string extra;
    for (const auto& header : settings.headers) extra += header + "\r\n";
    for (const auto& body : settings.bodies)
      requests_.push_back("POST " + settings.path + " HTTP/1.1\r\nHost: 127.0.0.1:" +
                          std::to_string(settings.port) + "\r\nContent-Type: application/json\r\n" +
                          (settings.key.empty() ? "" : "Authorization: Bearer " + settings.key + "\r\n") + extra +
                          "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  }

  int run() {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    connections_.resize(static_cast<std::size_t>(settings_.connections));
    for (auto& c : connections_)
      if (!open(c)) return 1;
    if (!settings_.streams) {
      loop_until(now_ns() + settings_.warmup_ms * 1'000'000);
    } else {
      // Streams are all under way before the warm-up counts.
      const auto limit = now_ns() + 20'000'000'000;
      while (started_ < connections_.size() && now_ns() < limit) loop_until(now_ns() + 20'000'000);
      loop_until(now_ns() + settings_.warmup_ms * 1'000'000);
    }
    const auto cpu_before = cpu_of(settings_.watched);
    const auto begin = now_ns();
    units_ = errors_ = 0;
    latencies_us_.clear();
    loop_until(begin + settings_.window_ms * 1'000'000);
    const auto cpu_after = cpu_of(settings_.watched);
    const auto seconds = static_cast<double>(now_ns() - begin) / 1e9;
    print(seconds, cpu_before, cpu_after);
    for (auto& c : connections_)
      if (c.fd >= 0) ::close(c.fd);
    return units_ > 0 ? 0 : 1;
  }

 private:
  bool open(Connection& c) {
    c.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(settings_.port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    // A server limits how many connections one address has (ours: 1,024), and 5,000 clients are not one machine.
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK + static_cast<std::uint32_t>((&c - connections_.data()) / kConnectionsPerAddress));
    bind(c.fd, reinterpret_cast<const sockaddr*>(&own), sizeof own);
    if (connect(c.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      std::fprintf(stderr, "gateway_load: cannot connect to port %d: %s\n", settings_.port,
                   std::strerror(errno));
      return false;
    }
    const int one = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c.fd, F_SETFL, fcntl(c.fd, F_GETFL) | O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &c;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, c.fd, &event);
    send_request(c);
    return true;
  }

  void send_request(Connection& c) {
    c.reader.reset();
    c.sent_ns = now_ns();
    // The requests of this load fit into any socket buffer.
    const auto& request = requests_[static_cast<std::size_t>(&c - connections_.data()) % requests_.size()];
    if (send(c.fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
      lost(c);
  }

  void lost(Connection& c) {
    ++errors_;
    ++lost_;
    ::close(c.fd);
    c.fd = -1;
  }

  void loop_until(std::int64_t end) {
    std::array<epoll_event, 512> events{};
    while (true) {
      const auto left = end - now_ns();
      if (left <= 0) return;
      const timespec wait{left / 1'000'000'000, left % 1'000'000'000};
      const int n = epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &wait, nullptr);
      for (int i = 0; i < n; ++i) {
        auto& c = *static_cast<Connection*>(events[static_cast<std::size_t>(i)].data.ptr);
        if (c.fd >= 0) readable(c);
      }
    }
  }

  void readable(Connection& c) {
    char buffer[65'536];
    const auto n = recv(c.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return lost(c);
    std::string_view bytes(buffer, static_cast<std::size_t>(n));
    const bool had_head = c.reader.status() != 0;
    c.reader.feed(bytes);
    if (!had_head && c.reader.status() != 0) ++started_;
    if (c.reader.state() == ResponseReader::State::kBad ||
        (c.reader.status() != 0 && c.reader.status() != 200)) {
      if (first_error_.empty()) first_error_ = std::string(bytes.substr(0, 300));
      return lost(c);
    }
    if (settings_.streams) {
      units_ += c.reader.take_events();
      note_ages(bytes);
    }
    if (c.reader.saw_error()) ++errors_;
    if (c.reader.state() != ResponseReader::State::kDone) return;
    if (!settings_.streams) {
      ++units_;
      latencies_us_.push_back(static_cast<std::uint32_t>((now_ns() - c.sent_ns) / 1000));
    }
    send_request(c);
  }

  // Of stamped tokens. A stamp ends with its text's quote; one that two reads or chunks share is left out.
  void note_ages(std::string_view bytes) {
    for (auto at = bytes.find(" @"); at != std::string_view::npos; at = bytes.find(" @", at + 2)) {
      std::int64_t made_ns = 0;
      const char* const limit = bytes.data() + bytes.size();
      const auto [end, error] = std::from_chars(bytes.data() + at + 2, limit, made_ns);
      if (error == std::errc{} && end != limit && *end == '"')
        latencies_us_.push_back(static_cast<std::uint32_t>(std::max<std::int64_t>(now_ns() - made_ns, 0) / 1000));
    }
  }

  void print(double seconds, const std::map<std::string, std::int64_t>& before,
             const std::map<std::string, std::int64_t>& after) {
    std::sort(latencies_us_.begin(), latencies_us_.end());
    const auto at = [&](double q) {
      if (latencies_us_.empty()) return std::uint32_t{0};
      return latencies_us_[static_cast<std::size_t>(q * static_cast<double>(latencies_us_.size() - 1))];
    };
    std::printf(
        "{\"units\":%lld,\"seconds\":%.3f,\"per_second\":%.1f,\"errors\":%lld,\"lost\":%lld,\"p50_us\":%u,"
        "\"p99_us\":%u,\"cpu_us_per_unit\":{",
        static_cast<long long>(units_), seconds, static_cast<double>(units_) / seconds,
        static_cast<long long>(errors_), static_cast<long long>(lost_), at(0.5), at(0.99));
    bool first = true;
    for (const auto& [name, ns] : after) {
      const auto used = static_cast<double>(ns - before.at(name)) / 1000.0;
      std::printf("%s\"%s\":%.3f", first ? "" : ",", name.c_str(),
                  units_ > 0 ? used / static_cast<double>(units_) : 0.0);
      first = false;
    }
    std::printf("}}\n");
    if (!first_error_.empty())
      std::fprintf(stderr, "gateway_load: first refusal: %s\n", first_error_.c_str());
  }

  const Settings& settings_;
  std::vector<std::string> requests_;
  int epoll_ = -1;
  std::vector<Connection> connections_;
  std::size_t started_ = 0;
  std::int64_t units_ = 0;
  std::int64_t errors_ = 0;
  std::int64_t lost_ = 0;
  std::string first_error_;
  std::vector<std::uint32_t> latencies_us_;
};

bool parse_watch(Settings& s, const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos) return false;
  auto& pids = s.watched[text.substr(0, equals)];
  std::size_t at = equals + 1;
  while (at < text.size()) {
    pids.push_back(std::atoi(text.c_str() + at));
    if (pids.back() <= 0) return false;
    const auto comma = text.find(',', at);
    at = comma == std::string::npos ? text.size() : comma + 1;
  }
  return true;
}

bool parse(int argc, char** argv, Settings& s) {
  if (argc < 2) return false;
  s.streams = std::string_view(argv[1]) == "streams";
  if (!s.streams && std::string_view(argv[1]) != "requests") return false;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view flag = argv[i];
    const char* value = argv[i + 1];
    if (flag == "--port")
      s.port = std::atoi(value);
    else if (flag == "--path")
      s.path = value;
    else if (flag == "--key")
      s.key = value;
    else if (flag == "--header")
      s.headers.emplace_back(value);
    else if (flag == "--body")
      s.bodies.emplace_back(value);
    else if (flag == "--connections")
      s.connections = std::atoi(value);
    else if (flag == "--warmup-ms")
      s.warmup_ms = std::atoll(value);
    else if (flag == "--window-ms")
      s.window_ms = std::atoll(value);
    else if (flag == "--watch") {
      if (!parse_watch(s, value)) return false;
    } else {
      return false;
    }
  }
  return argc % 2 == 0 && s.port > 0 && s.connections > 0 && s.window_ms > 0 && !s.bodies.empty();
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  if (!parse(argc, argv, settings)) {
    std::fputs(
        "usage: gateway_load requests|streams --port N --body JSON [--body JSON]... --connections N "
        "--warmup-ms N --window-ms "
        "N "
        "[--path P] [--key K] [--header H]... [--watch NAME=PID,...]\n",
        stderr);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  return Load(settings).run();
}
