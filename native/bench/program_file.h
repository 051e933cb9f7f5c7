// Programs from the files that `npm run export-step` writes: lib/graph/program.ts Programs as JSON, by name.
#pragma once
#include <fstream>
#include <sstream>

#include "../core/program.h"
#include "json.h"

namespace attune {
namespace bench {

inline std::vector<int64_t> to_ids(const Json& list) {
  std::vector<int64_t> ids;
  for (const Json& j : list.items) ids.push_back(j.integer());
  return ids;
}

inline Attrs to_attrs(const Json& object) {
  Attrs attrs;
  for (const auto& [key, j] : object.members) {
    if (j.kind == Json::number) attrs.set(key, j.value);
    else if (j.kind == Json::boolean) attrs.set(key, j.truth);
    else if (j.kind == Json::text) attrs.set(key, j.string);
    else {
      std::vector<double> values;
      for (const Json& v : j.items) values.push_back(v.value);
      attrs.set(key, std::move(values));
    }
  }
  return attrs;
}

inline Program to_program(const Json& j) {
  Program p;
  p.name = j.at("name").string;
  for (const Json& a : j.at("arenas").items) p.arenas.push_back({a.at("name").string, a.at("bytes").integer()});
  for (const Json& t : j.at("tensors").items) {
    ProgramTensor tensor;
    tensor.arena = t.at("arena").integer(), tensor.offset = t.at("offset").integer();
    if (!parse_dtype(t.at("dtype").string, &tensor.ref.dtype)) throw std::runtime_error("unknown dtype " + t.at("dtype").string);
    for (const int64_t d : to_ids(t.at("shape"))) tensor.ref.dims[tensor.ref.rank++] = d;
    p.tensors.push_back(tensor);
  }
  for (const Json& i : j.at("instructions").items) {
    Instruction in;
    in.op = i.at("op").string, in.label = i.at("label").string, in.attrs = to_attrs(i.at("attrs"));
    in.inputs = to_ids(i.at("inputs")), in.outputs = to_ids(i.at("outputs"));
    p.instructions.push_back(std::move(in));
  }
  for (const Json& port : j.at("inputs").items) p.inputs.push_back({port.at("name").string, port.at("tensor").integer()});
  for (const Json& port : j.at("outputs").items) p.outputs.push_back({port.at("name").string, port.at("tensor").integer()});
  for (const Json& s : j.at("scalars").items) p.scalars.push_back(s.string);
  return p;
}

/// The file's programs in its order: { programs: [...] }.
inline std::vector<Program> read_programs(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::stringstream text;
  text << file.rdbuf();
  try {
    std::vector<Program> programs;
    const Json steps = JsonReader(text.str()).read();  // named: a range-for keeps no temporary alive
    for (const Json& j : steps.at("programs").items) programs.push_back(to_program(j));
    return programs;
  } catch (const std::exception& e) { throw std::runtime_error(path + ": " + e.what()); }
}

}  // namespace bench
}  // namespace attune
