// One instruction under construction. A family of instructions registers a builder per opcode; the builder says what each operand is and picks the handler.
#pragma once
#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "../core/error.h"
#include "lexer.h"
#include "program.h"

namespace attune {
namespace ptxi {

/// A register, as its instruction sees it.
struct Place {
  uint32_t at = 0, index = 0;
  int bytes = 0;  // of a lane
  bool predicate = false;
};

/// What a builder needs of the body that its instruction stands in.
class Names {
 public:
  virtual ~Names() = default;
  /// Of a register, literal, special register or symbol; a literal is as wide as `type`, an address where that is Type::none.
  virtual Place place(const Term& term, Type type) = 0;
  virtual Place scratch(Type type) = 0;  // a register that no one reads
  /// The space of a name in .param space: of the kernel, or of a call that was put in place (then it is local memory).
  virtual Space parameter_space(std::string_view name) const = 0;
  virtual Error error(const Statement& s, const std::string& message) const = 0;
};

class Build {
 public:
  Build(Names& names, const Statement& statement, Entry& entry, Instruction& out);

  Instruction& out;
  Entry& entry;
  const Statement& statement;
  Names& names;

  std::string_view opcode() const { return opcode_; }
  size_t types() const { return types_.size(); }
  /// The k-th type in the opcode.
  Type type(size_t k = 0) const;
  /// The opcode has this modifier, which is thereby understood.
  bool take(std::string_view modifier);
  /// Which of these the opcode has: an index, or -1.
  int take_one(std::initializer_list<std::string_view> modifiers);
  /// Takes every modifier that begins so: cache hints.
  void take_all_from(std::string_view beginning);

  size_t operands() const { return statement.operands.size(); }
  const Term& term(size_t k) const;
  bool is_sink(size_t k) const { return term(k).kind == Term::name && term(k).spelling == "_"; }

  /// Operand k goes to out.operand[slot], as a source or as a target.
  void read(int slot, size_t k, Type type) { read(slot, term(k), type); }
  void read(int slot, const Term& term, Type type);
  void write(int slot, size_t k, Type type) { write(slot, term(k), type); }
  void write(int slot, const Term& term, Type type);
  /// A literal in a slot where the statement has no operand.
  void constant(int slot, uint64_t value, Type type);
  /// {a, b, ..}: out.operand[slot] is the first of `count` places in entry.lists. A single register is a list of one.
  void read_list(int slot, size_t k, Type type, size_t count) { read_list(slot, term(k), type, count); }
  void read_list(int slot, const Term& term, Type type, size_t count);
  void write_list(int slot, size_t k, Type type, size_t count);
  /// Likewise, of registers whose setness the handler looks after.
  void raw_list(int slot, size_t k, Type type, size_t count);
  /// [base + offset]: the base's place goes to the slot, detail[3] tells its width in bytes.
  void address(int slot, size_t k);
  /// The bytes that a lane of the register at operand k has.
  int bytes(size_t k);
  uint64_t literal(size_t k) const;

  [[noreturn]] void fail(const std::string& message) const { throw names.error(statement, message); }
  void finish();

 private:
  Place checked(const Term& term, Type type);
  void list(int slot, const Term& term, Type type, size_t count);

  std::string_view opcode_;
  std::vector<std::string_view> modifiers_;
  std::vector<bool> taken_;
  std::vector<Type> types_;
  std::vector<uint32_t> reads_, writes_;
};

/// False: these types are another family's.
using Builder = bool (*)(Build&);
using Families = std::multimap<std::string_view, Builder>;

void add_integers(Families&);
void add_bits(Families&);
void add_floats(Families&);
void add_approximations(Families&);
void add_halves(Families&);
void add_comparisons(Families&);
void add_conversions(Families&);
void add_moves(Families&);
void add_memory(Families&);
void add_atomics(Families&);
void add_control(Families&);
void add_warp(Families&);
void add_matrix(Families&);
void add_copies(Families&);
void add_hopper(Families&);
void add_wgmma(Families&);

}  // namespace ptxi
}  // namespace attune
