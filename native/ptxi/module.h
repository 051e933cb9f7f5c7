// A PTX file: its variables, and its kernels, each decoded when it is first asked for.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lexer.h"
#include "program.h"

namespace attune {
namespace ptxi {

struct Variable {
  Space space = Space::global;
  int64_t bytes = 0;
  int alignment = 1;
  uint64_t address = 0;  // of the host's memory, or an offset into shared memory
  bool dynamic = false;  // extern .shared name[]: lies behind all static shared memory
};

/// The body of a kernel or of a device function, not yet read.
struct Definition {
  std::vector<Parameter> parameters, results;
  bool kernel = false, defined = false;
  uint32_t at = 0, line = 0;  // its opening brace
  int max_threads[3] = {1024, 1, 1};
  bool exact_threads = false;
};

class Module {
 public:
  explicit Module(const std::string& path);
  Module(const std::string& name, std::string text);
  Module(const Module&) = delete;

  /// nullptr if the file has no such kernel.
  const Entry* entry(const std::string& name);
  std::vector<std::string> kernels() const;

  const Variable* variable(std::string_view name) const;
  const Definition* function(std::string_view name) const;
  const Source& source() const { return *source_; }
  int static_shared() const { return static_shared_; }
  /// The variable in global or constant memory that holds an address; nullptr if there is none.
  const Variable* holding(uint64_t address) const;

 private:
  void scan();
  void scan_definition(Lexer& lexer, bool kernel);
  std::vector<Parameter> scan_parameters(Lexer& lexer);
  void scan_limits(Lexer& lexer, Definition& d);
  void scan_variable(Lexer& lexer, Space space, bool external);
  void initialise(Lexer& lexer, Type type, unsigned char* at, int64_t& room);

  std::shared_ptr<const Source> source_;
  std::map<std::string, Definition, std::less<>> definitions_;
  std::map<std::string, Variable, std::less<>> variables_;
  std::map<uint64_t, const Variable*> by_address_;
  std::map<std::string, std::unique_ptr<Entry>> entries_;
  std::vector<std::unique_ptr<unsigned char[]>> memory_;
  int static_shared_ = 0;
};

/// Reads the body of a kernel.
std::unique_ptr<Entry> decode(const Module& module, std::shared_ptr<const Source> source, const std::string& name, const Definition& definition);

}  // namespace ptxi
}  // namespace attune
