// PTX text as tokens and operands. Knows the shapes of the grammar, no instruction.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "types.h"

namespace attune {
namespace ptxi {

struct Token {
  enum Kind : uint8_t { end, word, integer, real32, real64, text, sign } kind = end;
  std::string_view spelling;
  uint64_t value = 0;  // of a number: an integer, or the bits of a float
  uint32_t line = 0, at = 0;
  bool is(char c) const { return kind == sign && spelling[0] == c; }
  bool is(std::string_view w) const { return kind == word && spelling == w; }
};

/// Reads tokens from a whole file, from a place in it on.
class Lexer {
 public:
  Lexer(const std::string& path, std::string_view text, uint32_t at = 0, uint32_t line = 1);
  const Token& peek() const { return token_; }
  Token take();
  bool accept(char c);
  void expect(char c);
  std::string_view word();
  int64_t number();  // with a sign
  /// Skips a brace block whose first brace is next.
  void skip_block();
  [[noreturn]] void fail(const std::string& message) const;

 private:
  void scan();
  void scan_number();
  const std::string* path_;
  std::string_view text_;
  uint32_t at_, line_;
  Token token_;
};

/// An operand as it is written.
struct Term {
  enum Kind : uint8_t { name, number, vector, address, group } kind = name;
  std::string_view spelling;  // of a name
  std::string_view second;    // "p|q": q
  bool negated = false;       // "!p"
  Token::Kind number_kind = Token::integer;
  uint64_t value = 0;       // of a number
  int64_t offset = 0;       // "name + 4"
  std::vector<Term> items;  // of a vector or group; of an address: its base, then what follows a comma
};

struct Statement {
  std::string_view guard;  // "" if there is none
  bool guard_not = false;
  std::string_view op;  // "ld.global.u32"
  std::vector<Term> operands;
  uint32_t line = 0, text = 0, text_end = 0;
};

Term parse_term(Lexer& lexer);
/// From its guard or opcode to its semicolon.
Statement parse_statement(Lexer& lexer);

}  // namespace ptxi
}  // namespace attune
