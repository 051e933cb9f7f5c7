#include "module.h"

#include <cstring>
#include <fstream>
#include <sstream>

#include "../core/error.h"

namespace attune {
namespace ptxi {

namespace {
std::string read_file(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  if (!in) throw Error("ERR_DEVICE", "ptxi: cannot read " + path);
  return text.str();
}
int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
}  // namespace

Module::Module(const std::string& path) : Module(path, read_file(path)) {}

Module::Module(const std::string& name, std::string text) : source_(std::make_shared<Source>(Source{name, std::move(text)})) { scan(); }

void Module::scan() {
  Lexer lexer(source_->path, source_->text);
  bool external = false;
  while (lexer.peek().kind != Token::end) {
    const std::string_view word = lexer.word();
    if (word == ".version" || word == ".address_size") lexer.take();
    else if (word == ".target") {
      do lexer.word();
      while (lexer.accept(','));
    } else if (word == ".extern") external = true;
    else if (word == ".visible" || word == ".weak" || word == ".common") continue;
    else if (word == ".entry" || word == ".func") scan_definition(lexer, word == ".entry"), external = false;
    else if (word == ".global" || word == ".const" || word == ".shared")
      scan_variable(lexer, word == ".global" ? Space::global : word == ".const" ? Space::constant : Space::shared, external), external = false;
    else if (word == ".file" || word == ".pragma") {
      for (const uint32_t line = lexer.peek().line; lexer.peek().line == line && lexer.peek().kind != Token::end;) lexer.take();
    } else if (word == ".section") {
      lexer.word();
      lexer.skip_block();
    } else lexer.fail("ptxi knows no directive " + std::string(word));
  }
}

std::vector<Parameter> Module::scan_parameters(Lexer& lexer) {
  std::vector<Parameter> list;
  int64_t offset = 0;
  if (!lexer.accept('(')) return list;
  while (!lexer.accept(')')) {
    if (!list.empty()) lexer.expect(',');
    if (lexer.word() != ".param") lexer.fail("expected a parameter in .param space");
    Parameter p;
    Type type = Type::none;
    while (lexer.peek().spelling[0] == '.') {
      const std::string_view word = lexer.word();
      if (word == ".align") {
        const int n = int(lexer.number());
        if (type == Type::none) p.alignment = n;  // after the type, .align tells what a pointer points to
      } else if (type_named(word.substr(1)) != Type::none) type = type_named(word.substr(1));
      else if (word != ".ptr" && word != ".global" && word != ".shared" && word != ".const" && word != ".local") lexer.fail("unknown " + std::string(word));
    }
    p.name = lexer.word();
    p.bytes = bytes_of(type);
    if (!p.alignment) p.alignment = p.bytes;
    if (lexer.accept('[')) p.bytes *= int(lexer.number()), lexer.expect(']');
    p.offset = int(offset = round_up(offset, p.alignment));
    offset += p.bytes;
    list.push_back(p);
  }
  return list;
}

void Module::scan_limits(Lexer& lexer, Definition& d) {
  while (lexer.peek().kind == Token::word) {
    const std::string_view word = lexer.word();
    if (word == ".maxntid" || word == ".reqntid") {
      d.exact_threads = word == ".reqntid";
      for (int k = 0; k < 3 && (k == 0 || lexer.accept(',')); k++) d.max_threads[k] = int(lexer.number());
    } else if (word == ".minnctapersm" || word == ".maxnreg" || word == ".reqnctapercluster" || word == ".maxclusterrank") {
      do lexer.number();
      while (lexer.accept(','));
    } else if (word == ".pragma") {
      lexer.take(), lexer.expect(';');
    } else if (word != ".explicitcluster" && word != ".noreturn" && word != ".blocksareclusters") lexer.fail("unknown " + std::string(word));
  }
}

void Module::scan_definition(Lexer& lexer, bool kernel) {
  Definition d;
  d.kernel = kernel;
  if (!kernel) d.results = scan_parameters(lexer);
  const std::string name(lexer.word());
  d.parameters = scan_parameters(lexer);
  scan_limits(lexer, d);
  if (lexer.accept(';')) {  // declared only
    definitions_.emplace(name, d);
    return;
  }
  d.at = lexer.peek().at, d.line = lexer.peek().line, d.defined = true;
  lexer.skip_block();
  definitions_[name] = d;
}

void Module::scan_variable(Lexer& lexer, Space space, bool external) {
  Variable v;
  v.space = space;
  Type type = Type::none;
  while (lexer.peek().kind == Token::word && lexer.peek().spelling[0] == '.') {
    const std::string_view word = lexer.word();
    if (word == ".align") v.alignment = int(lexer.number());
    else if (word == ".attribute") {
      while (!lexer.accept(')')) lexer.take();
    } else if ((type = type_named(word.substr(1))) == Type::none) lexer.fail("unknown " + std::string(word));
  }
  const std::string name(lexer.word());
  v.bytes = bytes_of(type);
  v.alignment = std::max(v.alignment, bytes_of(type));
  while (lexer.accept('[')) {
    if (lexer.accept(']')) v.dynamic = external && space == Space::shared, v.bytes = 0;
    else v.bytes *= lexer.number(), lexer.expect(']');
  }
  if (space == Space::shared && !v.dynamic) {
    v.address = uint64_t(round_up(static_shared_, v.alignment));
    static_shared_ = int(int64_t(v.address) + v.bytes);
  }
  if (space != Space::shared) {
    const int64_t alignment = std::max(v.alignment, 16);
    memory_.push_back(std::make_unique<unsigned char[]>(size_t(v.bytes + alignment)));
    v.address = uint64_t(round_up(int64_t(reinterpret_cast<uintptr_t>(memory_.back().get())), alignment));
    int64_t room = v.bytes;
    if (lexer.accept('=')) initialise(lexer, type, reinterpret_cast<unsigned char*>(v.address), room);
  }
  lexer.expect(';');
  const auto [at, added] = variables_.emplace(name, v);
  if (added && space != Space::shared) by_address_[v.address] = &at->second;
}

void Module::initialise(Lexer& lexer, Type type, unsigned char* at, int64_t& room) {
  if (lexer.accept('{')) {
    for (bool first = true; !lexer.accept('}'); first = false) {
      if (!first) lexer.expect(',');
      const int64_t before = room;
      initialise(lexer, type, at, room);
      at += before - room;
    }
    return;
  }
  uint64_t bits = 0;
  if (lexer.peek().kind == Token::word) {  // an address: name, or generic(name)
    std::string_view name = lexer.word();
    if (name == "generic") lexer.expect('('), name = lexer.word(), lexer.expect(')');
    const Variable* target = variable(name);
    if (!target) lexer.fail("unknown variable");
    bits = target->address + uint64_t(lexer.accept('+') ? lexer.number() : 0);
  } else {
    const Term term = parse_term(lexer);
    bits = term.value;
    if (type == Type::f32 && term.number_kind == Token::real64) {
      double wide;
      std::memcpy(&wide, &bits, 8);
      const float narrow = float(wide);
      bits = 0, std::memcpy(&bits, &narrow, 4);
    }
  }
  if (room < bytes_of(type)) lexer.fail("more initialisers than the variable has room for");
  std::memcpy(at, &bits, size_t(bytes_of(type)));
  room -= bytes_of(type);
}

const Variable* Module::variable(std::string_view name) const {
  const auto found = variables_.find(name);
  return found == variables_.end() ? nullptr : &found->second;
}
const Definition* Module::function(std::string_view name) const {
  const auto found = definitions_.find(name);
  return found == definitions_.end() || found->second.kernel ? nullptr : &found->second;
}
const Variable* Module::holding(uint64_t address) const {
  auto next = by_address_.upper_bound(address);
  if (next == by_address_.begin()) return nullptr;
  const Variable* v = (--next)->second;
  return address < v->address + uint64_t(v->bytes) ? v : nullptr;
}

std::vector<std::string> Module::kernels() const {
  std::vector<std::string> names;
  for (const auto& [name, d] : definitions_)
    if (d.kernel) names.push_back(name);
  return names;
}

const Entry* Module::entry(const std::string& name) {
  const auto known = entries_.find(name);
  if (known != entries_.end()) return known->second.get();
  const auto found = definitions_.find(name);
  if (found == definitions_.end() || !found->second.kernel) return nullptr;
  return (entries_[name] = decode(*this, source_, name, found->second)).get();
}

std::string Entry::text_of(const Instruction& i) const {
  std::string text;
  for (const char c : source->text.substr(i.text, i.text_end - i.text)) text += c == '\t' || c == '\n' ? ' ' : c;
  return text;
}

}  // namespace ptxi
}  // namespace attune
