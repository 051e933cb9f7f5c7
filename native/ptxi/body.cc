// The body of a kernel: scopes of registers and labels, and its statements one after the other. A call of a device function is put in place, as nvcc's code has
// no recursion: what travels in .param space between the two lies in local memory, and the function's ret is a branch behind it.
#include <cctype>
#include <cstring>
#include <deque>

#include "build.h"
#include "module.h"

namespace attune {
namespace ptxi {

namespace {

struct Binding {
  enum Kind : uint8_t { registers, place, address } kind = place;
  Type type = Type::none;  // of registers
  int64_t count = 0;       // of a family %r<count>
  Place at{};
  Space space = Space::local;
  int64_t value = 0;  // of an address
};

struct Scope {
  const Scope* parent;
  std::map<std::string, Binding, std::less<>> names;
  std::map<std::string, uint32_t, std::less<>> labels;
  std::map<std::string, std::vector<std::string>, std::less<>> tables;
  struct Jump {
    uint32_t instruction;
    std::string label;
    bool table;
  };
  std::vector<Jump> jumps;  // to labels not seen yet
  explicit Scope(const Scope* parent) : parent(parent) {}
};

const std::map<std::string_view, Special>& specials() {
  static const std::map<std::string_view, Special> table = {{"%tid.x", Special::tid_x},
                                                            {"%tid.y", Special::tid_y},
                                                            {"%tid.z", Special::tid_z},
                                                            {"%ctaid.x", Special::ctaid_x},
                                                            {"%ctaid.y", Special::ctaid_y},
                                                            {"%ctaid.z", Special::ctaid_z},
                                                            {"%ntid.x", Special::ntid_x},
                                                            {"%ntid.y", Special::ntid_y},
                                                            {"%ntid.z", Special::ntid_z},
                                                            {"%nctaid.x", Special::nctaid_x},
                                                            {"%nctaid.y", Special::nctaid_y},
                                                            {"%nctaid.z", Special::nctaid_z},
                                                            {"%laneid", Special::laneid},
                                                            {"%warpid", Special::warpid},
                                                            {"%nwarpid", Special::nwarpid},
                                                            {"%lanemask_eq", Special::lanemask_eq},
                                                            {"%lanemask_lt", Special::lanemask_lt},
                                                            {"%lanemask_le", Special::lanemask_le},
                                                            {"%lanemask_gt", Special::lanemask_gt},
                                                            {"%lanemask_ge", Special::lanemask_ge},
                                                            {"%dynamic_smem_size", Special::dynamic_smem_size},
                                                            {"%cluster_ctarank", Special::zero},
                                                            {"%cluster_ctaid.x", Special::zero},
                                                            {"%cluster_ctaid.y", Special::zero},
                                                            {"%cluster_ctaid.z", Special::zero},
                                                            {"%cluster_nctarank", Special::one},
                                                            {"%cluster_nctaid.x", Special::one},
                                                            {"%cluster_nctaid.y", Special::one},
                                                            {"%cluster_nctaid.z", Special::one},
                                                            {"%smid", Special::zero}};
  return table;
}

struct Opcodes {
  Families pure, acting;  // pure: they compute from registers into registers
};
const Opcodes& opcodes() {
  static const Opcodes table = [] {
    Opcodes o;
    for (const auto add : {add_integers, add_bits, add_approximations, add_floats, add_halves, add_comparisons, add_conversions, add_moves}) add(o.pure);
    for (const auto add : {add_memory, add_atomics, add_control, add_warp, add_matrix, add_copies, add_hopper, add_wgmma}) add(o.acting);
    return o;
  }();
  return table;
}

const char kEnd[] = "(end of call)";  // the label that a function's ret leads to

class Body : public Names {
 public:
  Body(const Module& module, Entry& entry) : module_(module), entry_(entry) {}

  void read(const Definition& d) {
    Scope scope(nullptr);
    for (const Parameter& p : d.parameters) scope.names[p.name] = address_of(Space::param, p.offset);
    Lexer lexer(module_.source().path, module_.source().text, d.at, d.line);
    lexer.expect('{');
    statements(lexer, scope, false);
    if (!scope.jumps.empty()) lexer.fail("ptxi: " + entry_.name + " has no label " + scope.jumps[0].label);
    entry_.code.emplace_back().flow = Flow::exit;  // behind the last ret, where a label may stand
    for (const uint32_t m : marks_) entry_.code[m].label = true;
  }

  Place place(const Term& t, Type type) override;
  Place scratch(Type type) override { return new_register(type); }
  Space parameter_space(std::string_view name) const override {
    const Binding* b = find(name);
    return b && b->kind == Binding::address ? b->space : Space::param;
  }
  Error error(const Statement& s, const std::string& message) const override {
    const std::string text = module_.source().text.substr(s.text, s.text_end - s.text);
    return Error("ERR_DEVICE", "ptxi: " + entry_.name + ", line " + std::to_string(s.line) + " of " + module_.source().path + ": `" + text + "`: " + message);
  }

 private:
  static Binding address_of(Space space, int64_t value) {
    Binding b;
    b.kind = Binding::address, b.space = space, b.value = value;
    return b;
  }
  Place new_register(Type type) {
    const int lanes = type == Type::pred ? 4 : 32 * std::max(2, bytes_of(type));
    const Place p{entry_.file_bytes, entry_.registers++, type == Type::pred ? bytes_of(type) : std::max(2, bytes_of(type)), type == Type::pred};
    entry_.file_bytes += uint32_t((lanes + 63) / 64 * 64);
    return p;
  }
  int64_t new_local(int64_t bytes, int64_t alignment) {
    const int64_t at = (entry_.local_bytes + alignment - 1) / alignment * alignment;
    entry_.local_bytes = int(at + bytes);
    return at;
  }
  Place preset(Type type, bool special, Special which, uint64_t value);
  const Binding* find(std::string_view name) const;

  void statements(Lexer& lexer, Scope& scope, bool inside_call);
  void directive(Lexer& lexer, Scope& scope, std::string_view word);
  void declare_registers(Lexer& lexer, Scope& scope);
  void declare_memory(Lexer& lexer, Scope& scope);
  void statement(const Statement& s, Scope& scope, bool inside_call);
  void call(const Statement& s);
  void close(Scope& scope);
  void guard(const Statement& s, Instruction& out);
  void aim(uint32_t jump, uint32_t target) {
    entry_.code[jump].target = target;
    marks_.push_back(target);
  }

  const Module& module_;
  Entry& entry_;
  Scope* scope_ = nullptr;
  int depth_ = 0;                // of calls
  std::vector<uint32_t> marks_;  // where jumps lead
  std::map<std::tuple<bool, uint64_t, int>, Place> presets_;
};

const Binding* Body::find(std::string_view name) const {
  for (const Scope* s = scope_; s; s = s->parent) {
    const auto found = s->names.find(name);
    if (found != s->names.end()) return &found->second;
    size_t digits = name.size();
    while (digits > 0 && std::isdigit(static_cast<unsigned char>(name[digits - 1]))) digits--;
    if (digits == name.size()) continue;
    const auto family = s->names.find(std::string(name.substr(0, digits)) + "<");
    if (family == s->names.end()) continue;
    if (std::strtoll(std::string(name.substr(digits)).c_str(), nullptr, 10) >= family->second.count) continue;
    Binding b;  // of the family; its register is made on first use
    b.at = const_cast<Body*>(this)->new_register(family->second.type);
    return &(const_cast<Scope*>(s)->names[std::string(name)] = b);
  }
  return nullptr;
}

Place Body::preset(Type type, bool special, Special which, uint64_t value) {
  if (type == Type::none) type = special ? Type::u32 : Type::u64;
  const int bytes = type == Type::pred ? 1 : std::max(2, bytes_of(type));
  if (type != Type::pred && bytes < 8) value &= (uint64_t(1) << 8 * bytes) - 1;
  const auto key = std::make_tuple(special, special ? uint64_t(which) : value, bytes);
  const auto known = presets_.find(key);
  if (known != presets_.end()) return known->second;
  const Place p = new_register(type);
  entry_.presets.push_back({p.at, p.index, type == Type::pred ? 0 : bytes, special, which, value});
  return presets_[key] = p;
}

Place Body::place(const Term& t, Type type) {
  if (t.kind == Term::number) {
    uint64_t value = t.value;
    if (t.number_kind == Token::real64 && bytes_of(type) == 4) {
      double wide;
      std::memcpy(&wide, &value, 8);
      const float narrow = float(wide);
      value = 0, std::memcpy(&value, &narrow, 4);
    }
    return preset(type, false, Special::zero, value);
  }
  if (t.kind != Term::name) throw Error("ERR_DEVICE", "ptxi: " + entry_.name + ": expected a register or a literal");
  if (const Binding* b = find(t.spelling)) {
    if (b->kind == Binding::place) return b->at;
    if (b->kind == Binding::address) return preset(type, false, Special::zero, uint64_t(b->value + t.offset));
  }
  const auto special = specials().find(t.spelling);
  if (special != specials().end()) return preset(type, true, special->second, 0);
  if (t.spelling == "WARP_SZ") return preset(type, false, Special::zero, 32);
  if (const Variable* v = module_.variable(t.spelling)) {
    const int64_t base = v->dynamic ? (module_.static_shared() + v->alignment - 1) / v->alignment * v->alignment : int64_t(v->address);
    return preset(type, false, Special::zero, uint64_t(base + t.offset));
  }
  throw Error("ERR_DEVICE", "ptxi: " + entry_.name + " names " + std::string(t.spelling) + ", which is not declared");
}

void Body::statements(Lexer& lexer, Scope& scope, bool inside_call) {
  Scope* const outer = scope_;
  scope_ = &scope;
  while (!lexer.accept('}')) {
    if (lexer.accept('{')) {
      Scope inner(&scope);
      statements(lexer, inner, inside_call);
      for (Scope::Jump& j : inner.jumps) scope.jumps.push_back(j);  // out of the block
      continue;
    }
    if (lexer.peek().kind == Token::word) {
      Lexer ahead = lexer;
      const std::string_view word = ahead.word();
      if (word[0] == '.') {
        lexer = ahead;
        directive(lexer, scope, word);
        continue;
      }
      if (ahead.accept(':')) {
        lexer = ahead;
        if (lexer.peek().is(".branchtargets")) {
          lexer.word();
          auto& targets = scope.tables[std::string(word)];
          do targets.emplace_back(lexer.word());
          while (lexer.accept(','));
          lexer.expect(';');
        } else if (lexer.peek().is(".callprototype")) {
          while (!lexer.accept(';')) lexer.take();
        } else if (!scope.labels.emplace(std::string(word), uint32_t(entry_.code.size())).second) lexer.fail("two labels of one name");
        continue;
      }
    }
    statement(parse_statement(lexer), scope, inside_call);
  }
  close(scope);
  scope_ = outer;
}

/// Points the jumps whose label is in this scope at it; the others wait for the scope around it.
void Body::close(Scope& scope) {
  std::vector<Scope::Jump> open;
  for (const Scope::Jump& j : scope.jumps) {
    std::vector<std::string> labels = {j.label};
    if (j.table && scope.tables.count(j.label)) labels = scope.tables[j.label];
    else if (j.table || !scope.labels.count(j.label)) {
      open.push_back(j);
      continue;
    }
    Instruction& i = entry_.code[j.instruction];
    if (j.table) i.detail[0] = uint32_t(entry_.lists.size()), i.detail[1] = uint32_t(labels.size());
    for (const std::string& l : labels) {
      const auto found = scope.labels.find(l);
      if (found == scope.labels.end()) throw Error("ERR_DEVICE", "ptxi: " + entry_.name + " has no label " + l);
      if (j.table) entry_.lists.push_back({found->second, 0});
      aim(j.instruction, found->second);
    }
  }
  scope.jumps = open;
}

void Body::directive(Lexer& lexer, Scope& scope, std::string_view word) {
  if (word == ".reg") return declare_registers(lexer, scope);
  if (word == ".local" || word == ".param") return declare_memory(lexer, scope);
  if (word == ".loc") {
    for (const uint32_t line = lexer.peek().line; lexer.peek().line == line && lexer.peek().kind != Token::end;) lexer.take();
  } else if (word == ".pragma") lexer.take(), lexer.expect(';');
  else lexer.fail("ptxi knows no directive " + std::string(word) + " in a body");
}

void Body::declare_registers(Lexer& lexer, Scope& scope) {
  const Type type = type_named(lexer.word().substr(1));
  if (type == Type::none) lexer.fail("unknown type");
  do {
    std::string name(lexer.word());
    Binding b;
    if (lexer.accept('<')) {
      name += "<";
      b.kind = Binding::registers, b.type = type, b.count = lexer.number();
      lexer.expect('>');
    } else b.at = new_register(type);
    scope.names[name] = b;
  } while (lexer.accept(','));
  lexer.expect(';');
}

void Body::declare_memory(Lexer& lexer, Scope& scope) {
  int64_t alignment = 1, bytes = 0;
  while (lexer.peek().spelling[0] == '.') {
    const std::string_view word = lexer.word();
    if (word == ".align") alignment = lexer.number();
    else if ((bytes = bytes_of(type_named(word.substr(1)))) == 0) lexer.fail("unknown " + std::string(word));
  }
  alignment = std::max(alignment, bytes);
  const std::string name(lexer.word());
  while (lexer.accept('[')) bytes *= lexer.number(), lexer.expect(']');
  lexer.expect(';');
  scope.names[name] = address_of(Space::local, new_local(bytes, alignment));
}

void Body::guard(const Statement& s, Instruction& out) {
  if (s.guard.empty()) return;
  Term name;
  name.spelling = s.guard;
  const Place p = place(name, Type::pred);
  if (!p.predicate) throw error(s, "a guard is a predicate");
  out.guard = int32_t(p.at), out.guard_register = p.index, out.guard_not = s.guard_not;
}

void Body::statement(const Statement& s, Scope& scope, bool inside_call) {
  if (s.op.substr(0, 4) == "call") return call(s);
  const uint32_t at = uint32_t(entry_.code.size());
  entry_.code.emplace_back();
  Instruction out;
  Build build(*this, s, entry_, out);
  guard(s, out);
  const std::string_view op = build.opcode();
  if (op == "bra") {
    build.take("uni");
    out.flow = Flow::branch;
    scope.jumps.push_back({at, std::string(build.term(0).spelling), false});
  } else if (op == "brx") {
    build.take("idx"), build.take("uni");
    build.read(0, 0, Type::u32);
    out.flow = Flow::table;
    scope.jumps.push_back({at, std::string(build.term(1).spelling), true});
  } else if (op == "ret" && inside_call) {
    build.take("uni");
    out.flow = Flow::branch;
    scope.jumps.push_back({at, kEnd, false});
  } else {
    bool known = false, built = false;
    const auto build_from = [&](const Families& families) {
      const auto range = families.equal_range(op);
      for (auto f = range.first; f != range.second && !built; ++f) known = true, built = f->second(build);
    };
    build_from(opcodes().pure);
    if (built && out.unset == Unset::error) out.unset = Unset::spreads;
    if (!built) build_from(opcodes().acting);
    if (!built) throw error(s, known ? "ptxi does not know " + std::string(op) + " of these types" : "ptxi does not know the opcode " + std::string(op));
  }
  build.finish();
  entry_.code.back() = out;
}

void Body::call(const Statement& s) {
  // call (results), name, (parameters), each list only if it is not empty
  size_t k = 0;
  std::vector<Term> results, parameters;
  if (k < s.operands.size() && s.operands[k].kind == Term::group) results = s.operands[k++].items;
  const std::string_view name = k < s.operands.size() ? s.operands[k++].spelling : "";
  if (k < s.operands.size() && s.operands[k].kind == Term::group) parameters = s.operands[k++].items;
  const Definition* f = module_.function(name);
  if (!f || !f->defined) throw error(s, "a call of a function that the file does not define");
  if (results.size() != f->results.size() || parameters.size() != f->parameters.size()) throw error(s, "a call with other parameters than its function's");
  if (++depth_ > 16) throw error(s, "calls nested too deeply: recursion");
  Scope inner(nullptr);
  const auto bind = [&](const std::vector<Term>& actual, const std::vector<Parameter>& formal) {
    for (size_t i = 0; i < actual.size(); i++) {
      const Binding* b = find(actual[i].spelling);
      if (!b || b->kind != Binding::address) throw error(s, "an argument of a call is not in .param space");
      inner.names[formal[i].name] = *b;
    }
  };
  bind(results, f->results), bind(parameters, f->parameters);
  const uint32_t before = uint32_t(entry_.code.size());
  if (!s.guard.empty()) {  // lanes whose guard does not hold pass by
    Instruction& pass = entry_.code.emplace_back();
    guard(s, pass);
    pass.flow = Flow::branch, pass.guard_not = !s.guard_not;
    pass.line = s.line, pass.text = s.text, pass.text_end = s.text_end;
    inner.jumps.push_back({before, kEnd, false});
  }
  Lexer lexer(module_.source().path, module_.source().text, f->at, f->line);
  lexer.expect('{');
  statements(lexer, inner, true);
  for (const Scope::Jump& j : inner.jumps) {
    if (j.label != kEnd) throw error(s, "the function has no label " + j.label);
    aim(j.instruction, uint32_t(entry_.code.size()));
  }
  depth_--;
}

}  // namespace

std::unique_ptr<Entry> decode(const Module& module, std::shared_ptr<const Source> source, const std::string& name, const Definition& definition) {
  auto entry = std::make_unique<Entry>();
  entry->name = name, entry->source = std::move(source), entry->parameters = definition.parameters;
  if (!definition.parameters.empty()) entry->parameter_bytes = definition.parameters.back().offset + definition.parameters.back().bytes;
  std::copy(definition.max_threads, definition.max_threads + 3, entry->max_threads);
  entry->exact_threads = definition.exact_threads, entry->static_shared = module.static_shared();
  Body(module, *entry).read(definition);
  return entry;
}

}  // namespace ptxi
}  // namespace attune
