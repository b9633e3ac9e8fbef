// What the controller knows of the files behind deployments, for the answers of Ollama's family: size,
// digest, architecture, parameters, quantisation. Asked for when somebody wants it and kept, so that the last
// word stays while the controller is away.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "net/http.hpp"

namespace aiv::gateway {

struct ModelFacts {
  std::int64_t size_bytes = 0;
  std::string digest;        // SHA-256 of the file, 64 hexadecimal digits; empty while it is not known
  std::string architecture;  // "llama"
  std::string quantisation;  // "Q4_K_M"; empty: the header does not say
  std::int64_t parameters = 0;
};
using FactsByModel = std::map<std::string, ModelFacts, std::less<>>;
using VramByDeployment = std::map<std::string, std::int64_t, std::less<>>;

// The controller's lists of models and of replicas. What is not of the expected form is left out.
[[nodiscard]] FactsByModel read_model_facts(std::string_view json);
// Bytes that the largest replica of each deployment holds on its devices.
[[nodiscard]] VramByDeployment read_replica_bytes(std::string_view json);

// As Ollama prints it (ollama/ollama format/format.go): "8B", "7.6B", "494.03M", "260K".
[[nodiscard]] std::string parameter_size(std::int64_t parameters);

class ModelBook {
 public:
  // Younger ones are not asked for anew.
  static constexpr net::milliseconds kAge{2'000};

  struct Page {
    FactsByModel facts;
    VramByDeployment vram;
  };
  // The newest there is; an empty page before the first answer. Waits at most two seconds for the controller.
  net::Task<std::shared_ptr<const Page>> read(net::HttpClient& controller);

 private:
  std::shared_ptr<const Page> page_ = std::make_shared<const Page>();
  net::Clock::time_point asked_{};
};

}  // namespace aiv::gateway
