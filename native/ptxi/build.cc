#include "build.h"

namespace attune {
namespace ptxi {

Build::Build(Names& names, const Statement& statement, Entry& entry, Instruction& out) : out(out), entry(entry), statement(statement), names(names) {
  std::string_view rest = statement.op;
  const size_t dot = rest.find('.');
  opcode_ = rest.substr(0, dot);
  while (!rest.empty() && rest.find('.') != std::string_view::npos) {
    rest = rest.substr(rest.find('.') + 1);
    const std::string_view word = rest.substr(0, rest.find('.'));
    const Type type = type_named(word);
    if (type != Type::none) types_.push_back(type);
    else modifiers_.push_back(word);
  }
  taken_.resize(modifiers_.size());
  out.line = statement.line, out.text = statement.text, out.text_end = statement.text_end;
}

Type Build::type(size_t k) const {
  if (k >= types_.size()) fail("expected " + std::to_string(k + 1) + " types in the opcode");
  return types_[k];
}

bool Build::take(std::string_view modifier) {
  bool found = false;
  for (size_t i = 0; i < modifiers_.size(); i++)
    if (modifiers_[i] == modifier) taken_[i] = found = true;
  return found;
}

int Build::take_one(std::initializer_list<std::string_view> modifiers) {
  int index = 0;
  for (const std::string_view m : modifiers) {
    if (take(m)) return index;
    index++;
  }
  return -1;
}

void Build::take_all_from(std::string_view beginning) {
  for (size_t i = 0; i < modifiers_.size(); i++)
    if (modifiers_[i].substr(0, beginning.size()) == beginning) taken_[i] = true;
}

const Term& Build::term(size_t k) const {
  if (k >= operands()) fail("expected " + std::to_string(k + 1) + " operands or more");
  return statement.operands[k];
}

Place Build::checked(const Term& t, Type type) {
  const Place p = names.place(t, type);
  if (p.predicate != (type == Type::pred) || p.bytes != bytes_of(type))
    fail(p.predicate ? "a predicate stands for a ." + std::string(name_of(type))
                     : "a register of " + std::to_string(p.bytes) + " bytes stands for a ." + std::string(name_of(type)));
  return p;
}

void Build::read(int slot, const Term& t, Type type) {
  const Place p = checked(t, type);
  out.operand[slot] = p.at;
  reads_.push_back(p.index);
}

void Build::write(int slot, const Term& t, Type type) {
  const bool sink = t.kind == Term::name && t.spelling == "_";
  if (t.kind != Term::name || t.negated) fail("expected a register to write");
  const Place p = sink ? names.scratch(type) : checked(t, type);
  out.operand[slot] = p.at;
  writes_.push_back(p.index);
}

void Build::constant(int slot, uint64_t value, Type type) {
  Term t;
  t.kind = Term::number, t.value = value;
  read(slot, t, type);
}

void Build::read_list(int slot, const Term& t, Type type, size_t count) {
  list(slot, t, type, count);
  for (size_t k = 0; k < count; k++) reads_.push_back(entry.lists[out.operand[slot] + k].index);
}
void Build::write_list(int slot, size_t k, Type type, size_t count) {
  list(slot, term(k), type, count);
  for (size_t n = 0; n < count; n++) writes_.push_back(entry.lists[out.operand[slot] + n].index);
}
void Build::raw_list(int slot, size_t k, Type type, size_t count) { list(slot, term(k), type, count); }

void Build::list(int slot, const Term& t, Type type, size_t count) {
  const std::vector<Term> single = {t};
  const std::vector<Term>& items = t.kind == Term::vector ? t.items : single;
  if (items.size() != count) fail("expected a vector of " + std::to_string(count) + " registers");
  out.operand[slot] = uint32_t(entry.lists.size());
  for (const Term& item : items) {
    const bool sink = item.kind == Term::name && item.spelling == "_";
    const Place p = sink ? names.scratch(type) : checked(item, type);
    entry.lists.push_back({p.at, p.index});
  }
}

void Build::address(int slot, size_t k) {
  const Term& t = term(k);
  if (t.kind != Term::address) fail("expected an address in brackets");
  Term base = t.items[0];
  out.offset = base.kind == Term::name ? base.offset : 0;
  base.offset = 0;
  const Place p = names.place(base, Type::none);
  out.operand[slot] = p.at, out.detail[3] = uint32_t(p.bytes);
  reads_.push_back(p.index);
}

int Build::bytes(size_t k) {
  const Term& t = term(k);
  return names.place(t.kind == Term::vector ? t.items[0] : t, Type::none).bytes;
}

uint64_t Build::literal(size_t k) const {
  if (term(k).kind != Term::number) fail("expected a number");
  return term(k).value;
}

void Build::finish() {
  for (size_t i = 0; i < modifiers_.size(); i++)
    if (!taken_[i]) fail("ptxi does not know the modifier ." + std::string(modifiers_[i]) + " of " + std::string(opcode_));
  out.reads = uint32_t(entry.uses.size());
  entry.uses.insert(entry.uses.end(), reads_.begin(), reads_.end());
  out.writes = uint32_t(entry.uses.size());
  entry.uses.insert(entry.uses.end(), writes_.begin(), writes_.end());
  out.uses_end = uint32_t(entry.uses.size());
}

}  // namespace ptxi
}  // namespace attune
