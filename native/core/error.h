// The one exception type of native code. lib/native.ts turns it into the TypeScript class of the same code (lib/errors.ts).
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace attune {

/// `code` is one of ERR_PROGRAM, ERR_DEVICE, ERR_CAPABILITY, ERR_DRIVER, ERR_OUT_OF_MEMORY, ERR_NONFINITE, ERR_MEMORY, ERR_SHAPE, ERR_CLOSED, ERR_ABORTED,
/// ERR_CONFIG, ERR_DATA. ERR_MEMORY is a plan over its limit or a host that refuses; ERR_OUT_OF_MEMORY a device that does.
/// `op` and `label` name the instruction, where there is one; the message must say what was expected and what came.
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message, std::string op = "", std::string label = "")
      : std::runtime_error(message), code(std::move(code)), op(std::move(op)), label(std::move(label)) {}
  std::string code, op, label;
  int64_t needed = 0, available = 0;  // bytes, of ERR_MEMORY and ERR_OUT_OF_MEMORY
  std::string cuda;                   // CUDA's name of a failure: "cudaErrorIllegalAddress"
  std::string file;                   // of ERR_DATA, where a file is at fault
  int64_t offset = 0;                 // in that file
};

}  // namespace attune
