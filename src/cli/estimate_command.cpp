#include "cli/estimate_command.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "base/exit_code.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "core/vram.hpp"
#include "wire/model_file.hpp"

namespace aiv {
namespace {

struct Arguments {
  std::string file;
  std::string flash_attn = "on";
  std::string backend = "cuda";
  std::string token_embd = "host";
  bool json = false;
  EstimateOptions options;
};

Json to_json(const Estimate& estimate) {
  Json devices = Json::array();
  for (const DeviceEstimate& d : estimate.devices) {
    devices.push_back({{"weights_bytes", d.weights},
                       {"kv_bytes", d.kv},
                       {"recurrent_bytes", d.recurrent},
                       {"compute_bytes", d.compute},
                       {"total_bytes", d.total()},
                       {"layers", d.layers}});
  }
  return {{"architecture", estimate.architecture},
          {"method", to_string(estimate.method)},
          {"devices", std::move(devices)},
          {"host",
           {{"weights_bytes", estimate.host_weights},
            {"compute_bytes", estimate.host_compute},
            {"output_bytes", estimate.host_output}}},
          {"ctx", estimate.ctx},
          {"ctx_per_slot", estimate.ctx_per_slot},
          {"largest_operand_bytes", estimate.largest_operand}};
}

void print_row(const std::string& name, Bytes weights, Bytes kv, Bytes recurrent, Bytes compute,
               Bytes total) {
  std::printf("%-8s %11s %11s %11s %11s %11s\n", name.c_str(), format_bytes(weights).c_str(),
              format_bytes(kv).c_str(), format_bytes(recurrent).c_str(), format_bytes(compute).c_str(),
              format_bytes(total).c_str());
}

void print_table(const ModelFacts& model, const Estimate& estimate, const EstimateOptions& options) {
  std::printf("%s%s%s: %s, %lld layers, %.2f billion parameters, mostly %s\n", model.name.c_str(),
              model.name.empty() ? "" : " ", model.size_label.c_str(), model.architecture.c_str(),
              static_cast<long long>(model.n_layers), static_cast<double>(model.parameters) / 1e9,
              model.quantisation.c_str());
  std::printf("context %lld tokens, %d slot%s of %lld\n\n", static_cast<long long>(estimate.ctx),
              options.parallel, options.parallel == 1 ? "" : "s",
              static_cast<long long>(estimate.ctx_per_slot));
  std::printf("%-8s %11s %11s %11s %11s %11s\n", "", "weights", "KV cache", "state", "compute", "total");
  for (std::size_t i = 0; i < estimate.devices.size(); ++i) {
    const DeviceEstimate& d = estimate.devices[i];
    print_row("GPU " + std::to_string(i), d.weights, d.kv, d.recurrent, d.compute, d.total());
  }
  print_row("host", estimate.host_weights, 0, 0, estimate.host_compute + estimate.host_output,
            estimate.host_weights + estimate.host_compute + estimate.host_output);
  std::printf("\nNot in it: the driver's own memory per process (100 to 600 MiB).\n");
  if (estimate.method == EstimateMethod::kGeneric) {
    std::printf("The architecture \"%s\" is not in the table: these figures are upper bounds, not exact.\n",
                model.architecture.c_str());
  }
}

int report(const Error& error) {
  std::fprintf(stderr, "aiv estimate: %s\n", printable(error.message(), 1000).c_str());
  // An option that is out of range is the user's command line, not the file.
  return static_cast<int>(exit_code_of(error.code));
}

int run(Arguments& arguments) {
  EstimateOptions& options = arguments.options;
  options.flash_attn = arguments.flash_attn == "on";
  options.token_embd_on_device = arguments.token_embd == "device";
  options.backend = arguments.backend == "hip"      ? EstimateBackend::kHip
                    : arguments.backend == "vulkan" ? EstimateBackend::kVulkan
                                                    : EstimateBackend::kCuda;
  const Result<ModelFacts> model = read_model_file(arguments.file);
  if (!model) return report(model.error());
  const Result<Estimate> result = estimate(*model, options);
  if (!result) {
    report(result.error());
    // The file was sound, so what is wrong is an option's value.
    return static_cast<int>(result.error().code == ErrorCode::kInvalidArgument
                                ? ExitCode::kUsage
                                : exit_code_of(result.error().code));
  }
  if (arguments.json) {
    std::printf("%s\n", dump_json(to_json(*result)).c_str());
  } else {
    print_table(*model, *result, options);
  }
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

void add_estimate_command(CLI::App& app, int& exit_code) {
  // Shared: the callback outlives this function, the parser writes into it.
  auto arguments = std::make_shared<Arguments>();
  EstimateOptions& options = arguments->options;
  CLI::App* verb = app.add_subcommand("estimate", "What a model takes on each GPU, from its header alone");
  verb->add_option("file", arguments->file, "GGUF file; of a split model the first part")->required();
  verb->add_option("--ctx", options.ctx, "Context of the process in tokens, all slots together")
      ->capture_default_str();
  verb->add_option("--parallel", options.parallel, "Slots")->capture_default_str();
  verb->add_option("--ubatch", options.ubatch, "Tokens computed at once")->capture_default_str();
  verb->add_option("--flash-attn", arguments->flash_attn, "on or off")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  verb->add_option("--cache-type-k", options.cache_type_k, "Type of the K cache: f16, q8_0, ...")
      ->capture_default_str();
  verb->add_option("--cache-type-v", options.cache_type_v, "Type of the V cache")->capture_default_str();
  verb->add_flag("--kv-unified,!--no-kv-unified", options.kv_unified,
                 "One cache for all slots; default: one each");
  verb->add_option("--devices", options.devices, "Equal GPUs to split the layers over")
      ->capture_default_str();
  verb->add_flag("--embeddings", options.embeddings, "The process serves embeddings");
  verb->add_option("--outputs-max", options.outputs_max,
                   "Logits kept per batch; default: --parallel, for embeddings --ubatch");
  verb->add_option("--backend", arguments->backend, "Alignment and padding rules: cuda, hip or vulkan")
      ->check(CLI::IsMember({"cuda", "hip", "vulkan"}))
      ->capture_default_str();
  verb->add_option("--token-embd", arguments->token_embd, "Where the token embedding lies: host or device")
      ->check(CLI::IsMember({"host", "device"}))
      ->capture_default_str();
  verb->add_flag("--json", arguments->json, "Print JSON");
  verb->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace aiv
