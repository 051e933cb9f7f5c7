#include "lexer.h"

#include <cctype>
#include <cstdlib>
#include <cstring>

#include "../core/error.h"

namespace attune {
namespace ptxi {

namespace {
bool starts_word(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.'; }
bool goes_on(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '.'; }
}  // namespace

Lexer::Lexer(const std::string& path, std::string_view text, uint32_t at, uint32_t line) : path_(&path), text_(text), at_(at), line_(line) { scan(); }

void Lexer::fail(const std::string& message) const {
  throw Error("ERR_DEVICE", *path_ + ":" + std::to_string(token_.line) + ": " + message + ", at \"" + std::string(token_.spelling) + "\"");
}

void Lexer::scan() {
  const auto at = [&](uint32_t i) { return i < text_.size() ? text_[i] : '\0'; };
  for (;;) {  // blanks and comments
    if (at_ >= text_.size()) break;
    if (at(at_) == '\n') line_++, at_++;
    else if (std::isspace(static_cast<unsigned char>(at(at_)))) at_++;
    else if (at(at_) == '/' && at(at_ + 1) == '/') {
      while (at_ < text_.size() && at(at_) != '\n') at_++;
    } else if (at(at_) == '/' && at(at_ + 1) == '*') {
      for (at_ += 2; at_ < text_.size() && !(at(at_) == '*' && at(at_ + 1) == '/'); at_++) line_ += at(at_) == '\n';
      at_ += 2;
    } else break;
  }
  token_ = Token{};
  token_.line = line_, token_.at = at_;
  if (at_ >= text_.size()) return;
  const uint32_t begin = at_;
  const char c = at(at_);
  if (std::isdigit(static_cast<unsigned char>(c))) return scan_number();
  if (starts_word(c)) {
    token_.kind = Token::word;
    for (at_++; goes_on(at(at_)) || (at(at_) == ':' && at(at_ + 1) == ':'); at_++) at_ += at(at_) == ':';
  } else if (c == '"') {
    token_.kind = Token::text;
    for (at_++; at_ < text_.size() && at(at_) != '"'; at_++) {}
    at_++;
  } else token_.kind = Token::sign, at_++;
  token_.spelling = text_.substr(begin, at_ - begin);
}

void Lexer::scan_number() {
  const char* begin = text_.data() + at_;
  const char kind = at_ + 1 < text_.size() && begin[0] == '0' ? begin[1] : '\0';
  size_t length = 0;
  if (kind == 'f' || kind == 'F' || kind == 'd' || kind == 'D') {  // the bits of a float
    length = kind == 'f' || kind == 'F' ? 10 : 18;
    token_.kind = length == 10 ? Token::real32 : Token::real64;
    token_.value = std::strtoull(std::string(begin + 2, length - 2).c_str(), nullptr, 16);
  } else {
    const bool hex = kind == 'x' || kind == 'X';
    while (at_ + length < text_.size() &&
           (goes_on(begin[length]) || (!hex && (begin[length] == '-' || begin[length] == '+') && std::strchr("eE", begin[length - 1]))))
      length++;
    const std::string digits(begin, length);
    if (!hex && digits.find_first_of(".eE") != std::string::npos) {
      const double value = std::strtod(digits.c_str(), nullptr);
      token_.kind = Token::real64;
      std::memcpy(&token_.value, &value, 8);
    } else token_.kind = Token::integer, token_.value = std::strtoull(digits.c_str(), nullptr, 0);  // a suffix U ends it
  }
  token_.spelling = text_.substr(at_, length);
  at_ += uint32_t(length);
}

Token Lexer::take() {
  const Token taken = token_;
  scan();
  return taken;
}
bool Lexer::accept(char c) {
  if (!token_.is(c)) return false;
  scan();
  return true;
}
void Lexer::expect(char c) {
  if (!accept(c)) fail(std::string("expected '") + c + "'");
}
std::string_view Lexer::word() {
  if (token_.kind != Token::word) fail("expected a name");
  return take().spelling;
}
int64_t Lexer::number() {
  const bool minus = accept('-');
  if (token_.kind != Token::integer) fail("expected an integer");
  const int64_t value = int64_t(take().value);
  return minus ? -value : value;
}

void Lexer::skip_block() {
  expect('{');
  for (int depth = 1; depth > 0;) {
    if (token_.kind == Token::end) fail("a block does not end");
    const Token t = take();
    depth += t.is('{') ? 1 : t.is('}') ? -1 : 0;
  }
}

namespace {
std::vector<Term> parse_list(Lexer& lexer, char close) {
  std::vector<Term> items;
  while (!lexer.accept(close)) {
    if (!items.empty()) lexer.expect(',');
    items.push_back(parse_term(lexer));
  }
  return items;
}
}  // namespace

Term parse_term(Lexer& lexer) {
  Term term;
  if (lexer.accept('{')) {
    term.kind = Term::vector, term.items = parse_list(lexer, '}');
  } else if (lexer.accept('(')) {
    term.kind = Term::group, term.items = parse_list(lexer, ')');
  } else if (lexer.accept('[')) {
    term.kind = Term::address, term.items = parse_list(lexer, ']');
    if (term.items.empty()) lexer.fail("an empty address");
    term.offset = term.items[0].offset;
  } else if (lexer.peek().kind == Token::word || lexer.peek().is('!')) {
    term.negated = lexer.accept('!');
    term.spelling = lexer.word();
    if (lexer.accept('|')) term.second = lexer.word();
  } else {
    const bool minus = lexer.accept('-');
    const Token t = lexer.take();
    if (t.kind != Token::integer && t.kind != Token::real32 && t.kind != Token::real64) lexer.fail("expected an operand");
    term.kind = Term::number, term.number_kind = t.kind, term.value = t.value;
    if (minus) term.value = t.kind == Token::integer ? uint64_t(0) - t.value : t.value ^ (t.kind == Token::real32 ? uint64_t(1) << 31 : uint64_t(1) << 63);
  }
  if (term.kind == Term::name || term.kind == Term::number) {
    while (lexer.peek().is('+') || lexer.peek().is('-')) {  // "%rd1+8", "%rd1+-8", "name-4"
      const bool minus = lexer.take().is('-');
      const int64_t value = lexer.number();
      term.offset += minus ? -value : value;
    }
    if (term.kind == Term::number) term.value += uint64_t(term.offset), term.offset = 0;
  }
  return term;
}

Statement parse_statement(Lexer& lexer) {
  Statement s;
  s.line = lexer.peek().line, s.text = lexer.peek().at;
  if (lexer.accept('@')) {
    s.guard_not = lexer.accept('!');
    s.guard = lexer.word();
  }
  s.op = lexer.word();
  while (!lexer.peek().is(';')) {
    if (!s.operands.empty()) lexer.expect(',');
    s.operands.push_back(parse_term(lexer));
  }
  s.text_end = lexer.peek().at;
  lexer.expect(';');
  return s;
}

}  // namespace ptxi
}  // namespace attune
