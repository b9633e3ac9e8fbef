#include "cli/gpu_check_command.hpp"

#include <iostream>
#include <memory>

#include "base/exit_code.hpp"
#include "base/file.hpp"
#include "cli/api_client.hpp"
#include "cli/gpu_check.hpp"

namespace aiv::cli {
namespace {

int run(const GpuCheckOptions& options) {
  const GpuCheckReport report = run_gpu_check(options);
  const std::string text = dump_json(report.to_json(), 2) + "\n";
  print(text);
  if (!options.report.empty()) {
    if (const auto written = write_file_durably(options.report, text, 0644); !written) {
      return cli::report(written.error());
    }
  }
  if (!report.gpu_found && report.steps.empty()) {
    std::cerr << "aiv gpu-check: no GPU that can be used was found on this machine\n";
    return static_cast<int>(ExitCode::kNotFound);
  }
  return static_cast<int>(report.held() ? ExitCode::kOk : ExitCode::kFailure);
}

}  // namespace

void add_gpu_check_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<GpuCheckOptions>();
  CLI::App* verb = app.add_subcommand("gpu-check", "Check the product's promises on this machine's real GPU");
  verb->add_option("--model", options->model, "GGUF file to load (default: a random model of about 450 MB)")
      ->check(CLI::ExistingFile);
  verb->add_option("--software", options->software, "Try the check itself on a software GPU, NAME:SIZE");
  verb->add_option("--data", options->data_dir, "Keep logs and state in this folder");
  verb->add_option("--report", options->report, "Write the report into this file too");
  verb->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace aiv::cli
